# LD, ResNet-101 -> ResNet-18, VOC 07+12, default recipe. No published row: see ld_r18_r101_voc_published.py.
# Train the teacher first: ld-deploy train configs/voc/gfl_r101_voc.py
_base_ = ['./gfl_r18_voc.py', '../_base_/default_recipe.py']
published = None
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/gfl_r101_voc.py', checkpoint='work_dirs/gfl_r101_voc/best.pth'),
    **_base_.default_recipe)
