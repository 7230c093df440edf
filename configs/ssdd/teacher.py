# SSDD teacher: ResNet-18 at a quarter of its width, twice the student's head.
_base_ = './student.py'
model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64))
