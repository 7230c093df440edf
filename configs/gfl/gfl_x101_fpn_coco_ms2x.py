# GFL ResNeXt-101-32x4d, COCO 2x with multi-scale training. Published AP 45.9 (mmdet).
_base_ = './gfl_r50_fpn_coco_ms2x.py'
published = dict(ap=0.459, on='COCO val2017', source='mmdet 3.3, metafile')
model = dict(
    backbone=dict(
        type='ResNeXt', depth=101, groups=32, base_width=4,
        init_cfg=dict(checkpoint='open-mmlab://resnext101_32x4d')))
