# LD on GFLv2, ResNet-101 -> ResNet-50, COCO 1x, default recipe. No published row: see the file with `_published`.
# Train the teacher first: ld-deploy train configs/gflv2/gflv2_r101_coco_ms2x.py
_base_ = ['./gflv2_r50_coco_1x.py', '../_base_/default_recipe.py']
published = None
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/gflv2_r101_coco_ms2x.py', checkpoint='work_dirs/gflv2_r101_coco_ms2x/best.pth'),
    **_base_.default_recipe)
