# GFL ResNet-50 baseline, COCO 1x. Published AP 40.2 (mmdet), 40.1 (LD).
_base_ = '../_base_/gfl.py'
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
