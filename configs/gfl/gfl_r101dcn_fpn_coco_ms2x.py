# GFL ResNet-101 with deformable convolutions, COCO 2x with multi-scale training: a teacher. Published AP 47.1 (mmdet).
_base_ = './gfl_r101_fpn_coco_ms2x.py'
published = dict(ap=0.471, on='COCO val2017', source='mmdet 3.3, metafile')
model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True)))
