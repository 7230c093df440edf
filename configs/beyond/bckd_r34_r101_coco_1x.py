# BCKD, ResNet-101 -> ResNet-34, COCO 1x. Published AP 42.0.
_base_ = './bckd_r50_r101_coco_1x.py'
published = dict(_delete_=True, ap=0.420, on='COCO val2017', source='BCKD, README')
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')),
    neck=dict(in_channels=[64, 128, 256, 512]))
