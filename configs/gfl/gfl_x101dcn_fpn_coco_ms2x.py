# GFL ResNeXt-101-32x4d with deformable convolutions, COCO 2x with multi-scale training. Published AP 48.1 (mmdet).
_base_ = './gfl_x101_fpn_coco_ms2x.py'
published = dict(ap=0.481, on='COCO val2017', source='mmdet 3.3, metafile')
model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, False, True, True)))
