# Self-LD in the main region only, ResNet-50 -> ResNet-50, COCO 1x, as published. Published AP 40.6.
# The teacher is mmdet's, AP 40.2; the published one has 40.1.
_base_ = './ld_r18_r18_coco_1x_published.py'
published = dict(ap=0.406, ap50=0.582, ap75=0.438, on='COCO val2017', source='LD, README, Self-LD table')
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]),
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r50_fpn_coco_1x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth'))  # noqa
