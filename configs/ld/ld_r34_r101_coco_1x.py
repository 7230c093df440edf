# LD, ResNet-101 -> ResNet-34, COCO 1x, default recipe. No published row: see ld_r34_r101_coco_1x_published.py.
_base_ = './ld_r18_r101_coco_1x.py'
published = None
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
