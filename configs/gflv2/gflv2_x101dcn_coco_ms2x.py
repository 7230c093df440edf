# GFLv2 ResNeXt-101-32x4d with deformable convolutions, COCO 2x with multi-scale training. Published AP 48.8.
_base_ = './gflv2_r50_coco_ms2x.py'
published = dict(ap=0.488, on='COCO val2017', source='GFocalV2, README')
model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=32, base_width=4,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
        init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d')))
