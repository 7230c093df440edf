# GFL ResNet-18 baseline, COCO 1x. Published AP 35.8.
_base_ = '../_base_/gfl.py'
published = dict(ap=0.358, ap50=0.531, ap75=0.382, on='COCO val2017', source='LD, README, main region table')
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
