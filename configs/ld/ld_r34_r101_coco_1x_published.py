# LD, ResNet-101 -> ResNet-34, COCO 1x, as the published code computes it. Published AP 41.0.
_base_ = './ld_r18_r101_coco_1x_published.py'
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
