# GFLv2 Res2Net-101 with deformable convolutions, COCO 2x with multi-scale training: a teacher. Published AP 49.9.
_base_ = './gflv2_r50_coco_ms2x.py'
published = dict(ap=0.499, on='COCO val2017', source='GFocalV2, README')
model = dict(
    backbone=dict(
        type='Res2Net', depth=101, scales=4, base_width=26,
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True),
        init_cfg=dict(checkpoint='open-mmlab://res2net101_v1d_26w_4s')))
