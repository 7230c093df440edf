# GFL MobileNetV2 baseline, COCO 1x. Published AP 30.9.
# The source at hand does not say of which detector the published AP is.
_base_ = '../_base_/gfl.py'
published = dict(ap=0.309, on='COCO val2017', source='CrossKD, paper, by a note that names no detector')
model = dict(
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2')),
    neck=dict(in_channels=[24, 32, 96, 320]))
find_unused_parameters = True  # the layer after the last of out_indices
