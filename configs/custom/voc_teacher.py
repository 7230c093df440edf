# The teacher for voc_distilled.py: ResNet-101 on the same data. Train it first.
_base_ = './voc_baseline.py'
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
