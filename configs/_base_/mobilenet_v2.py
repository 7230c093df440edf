# MobileNetV2 in the place of a ResNet: `_base_ = ['./OTHER.py', '../_base_/mobilenet_v2.py']`, then
# model = dict(**_base_.mobilenet_v2).
mobilenet_v2 = dict(
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2')),
    neck=dict(in_channels=[24, 32, 96, 320]))
find_unused_parameters = True  # the layer after the last of out_indices
