# LD, ResNet-101 -> ResNet-50, COCO 1x, default recipe. No published row: see ld_r50_r101_coco_1x_published.py.
_base_ = './ld_r18_r101_coco_1x.py'
published = None
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
