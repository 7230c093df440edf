# GFL ResNeXt-101-32x4d with deformable convolutions, COCO 1x: teacher and baseline of a Self-LD row. Published AP 46.9.
_base_ = '../_base_/gfl.py'
published = dict(ap=0.469, ap50=0.654, ap75=0.511, on='COCO val2017', source='LD, README, Self-LD table')
model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=32, base_width=4,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
        init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d')))
