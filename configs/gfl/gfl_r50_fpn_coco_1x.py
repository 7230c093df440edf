# GFL ResNet-50 baseline, COCO 1x. Published AP 40.1 (LD; its released file has CIoU, not GIoU), 40.2 (mmdet).
_base_ = '../_base_/gfl.py'
published = dict(ap=0.401, ap50=0.582, ap75=0.431, on='COCO val2017', source='LD, README, main region table')
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
