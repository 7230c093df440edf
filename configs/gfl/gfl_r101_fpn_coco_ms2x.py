# GFL ResNet-101, COCO 2x with multi-scale training: the teacher of the published rows. Published AP 44.7 (mmdet),
# and 44.6 as LD's own baseline.
_base_ = './gfl_r50_fpn_coco_ms2x.py'
published = dict(ap=0.447, on='COCO val2017', source='mmdet 3.3, metafile')
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
