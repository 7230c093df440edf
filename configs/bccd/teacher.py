# BCCD teacher: ResNet-18 at half its width, twice the student's head.
_base_ = './student.py'
model = dict(
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2))
optim_wrapper = dict(optimizer=dict(lr=0.001))
