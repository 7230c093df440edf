# The teacher for rotated_distilled.py: ResNet-50 on the same data. Train it first.
_base_ = './rotated_baseline.py'
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
