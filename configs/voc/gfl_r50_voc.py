# GFL ResNet-50 baseline, VOC 07+12, 4 epochs of three passes. Published AP 55.8.
_base_ = '../_base_/voc0712.py'
published = dict(ap=0.558, ap50=0.790, ap75=0.607, on='VOC2007 test', source='LD, README, VOC table')
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')))
