# GFLv2 ResNet-101 with deformable convolutions, COCO 2x with multi-scale training: a teacher. Published AP 48.0.
_base_ = './gflv2_r101_coco_ms2x.py'
published = dict(ap=0.480, on='COCO val2017', source='GFocalV2, README')
model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True)))
