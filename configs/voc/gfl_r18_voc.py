# GFL ResNet-18 baseline, VOC 07+12, 4 epochs of three passes. Published AP 51.8.
# CIoU, as in the released file of this row; the released file of ResNet-101 has GIoU.
_base_ = '../_base_/voc0712.py'
published = dict(ap=0.518, ap50=0.758, ap75=0.563, on='VOC2007 test', source='LD, README, VOC table')
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
    bbox_head=dict(loss_bbox=dict(type='CIoULoss')))
