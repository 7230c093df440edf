# CrossKD, ResNet-50 -> ResNet-18, COCO 1x. Published AP 38.7.
_base_ = './crosskd_r50_r101_coco_1x.py'
published = dict(ap=0.387, on='COCO val2017', source='CrossKD, paper')
model = dict(
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r50_fpn_coco_1x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth'),  # noqa
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]))
