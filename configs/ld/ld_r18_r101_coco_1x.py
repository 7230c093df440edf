# LD, ResNet-101 -> ResNet-18, COCO 1x, default recipe: nothing depends on the images per GPU.
# No published row: the published recipe is in ld_r18_r101_coco_1x_published.py.
_base_ = ['../gfl/gfl_r18_fpn_coco_1x.py', '../_base_/default_recipe.py']
published = None
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r101_fpn_coco_ms2x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth'),  # noqa
    **_base_.default_recipe)
