# BCKD, ResNet-101 -> ResNet-18, COCO 1x. Published AP 38.6.
_base_ = './bckd_r50_r101_coco_1x.py'
published = dict(_delete_=True, ap=0.386, on='COCO val2017', source='BCKD, README')
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
