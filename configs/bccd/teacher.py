# BCCD teacher: ResNet-34 at half its width.
_base_ = './student.py'
model = dict(
    backbone=dict(depth=34, base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=96),
    bbox_head=dict(in_channels=96, feat_channels=96, stacked_convs=3))
optim_wrapper = dict(optimizer=dict(lr=0.001))
