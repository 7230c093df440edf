# LD, ResNet-101 -> ResNet-34, COCO 1x, default recipe.
_base_ = './ld_r18_r101_coco_1x.py'
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
