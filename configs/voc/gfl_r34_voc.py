# GFL ResNet-34 baseline, VOC 07+12, 4 epochs of three passes. Published AP 55.7.
_base_ = '../_base_/voc0712.py'
published = dict(ap=0.557, ap50=0.789, ap75=0.606, on='VOC2007 test', source='LD, README, VOC table')
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')),
    neck=dict(in_channels=[64, 128, 256, 512]))
