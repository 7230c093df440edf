# PKD, ResNet-50 -> MobileNetV2, COCO 1x. Published AP 33.2.
# The source at hand does not say of which detector the published AP is.
_base_ = './pkd_r18_r50_coco_1x.py'
published = dict(ap=0.332, on='COCO val2017', source='CrossKD, paper, by a note that names no detector')
model = dict(
    backbone=dict(
        _delete_=True, type='MobileNetV2', out_indices=(1, 2, 4, 6),
        act_cfg=dict(type='LeakyReLU', negative_slope=0.1),
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2')),
    neck=dict(in_channels=[24, 32, 96, 320]))
find_unused_parameters = True  # the layer after the last of out_indices
