# GFL ResNet-101 with deformable convolutions, VOC 07+12: a teacher. No published AP.
_base_ = './gfl_r101_voc.py'
published = dict(_delete_=True, on='VOC2007 test', source='LD, README, pretrained weights: no AP given')
model = dict(
    backbone=dict(
        dcn=dict(type='DCN', deform_groups=1, fallback_on_stride=False),
        stage_with_dcn=(False, True, True, True)))
