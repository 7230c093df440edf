# SSDD teacher: ResNet-18 at a quarter of its width, twice the student's head, and twice its schedule.
_base_ = './student.py'
model = dict(
    backbone=dict(base_channels=16, stem_channels=16),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64))

epochs = 24
train_cfg = dict(max_epochs=epochs)
param_scheduler = [
    _base_.warm_up,
    dict(type='CosineAnnealingLR', begin=0, end=epochs, T_max=epochs, by_epoch=True, convert_to_iter_based=True)
]
