# GFL ResNet-18 baseline, COCO 1x. Published AP 35.8.
_base_ = '../_base_/gfl.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
