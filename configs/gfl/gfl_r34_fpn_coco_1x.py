# GFL ResNet-34 baseline, COCO 1x. Published AP 38.9.
_base_ = '../_base_/gfl.py'
published = dict(ap=0.389, ap50=0.566, ap75=0.422, on='COCO val2017', source='LD, README, main region table')
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')),
    neck=dict(in_channels=[64, 128, 256, 512]))
