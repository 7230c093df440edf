# GFL ResNet-101 baseline and teacher, VOC 07+12, 4 epochs of three passes. Published AP 57.6.
# The README trains the row for 4 epochs; the released file of this teacher says 16, with a step after the 12th.
_base_ = '../_base_/voc0712.py'
published = dict(ap=0.576, ap50=0.804, ap75=0.627, on='VOC2007 test', source='LD, README, VOC table')
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
