# GFLv2 ResNet-101, COCO 2x with multi-scale training: a teacher. Published AP 45.8, test-dev 46.0.
# The published weights are on Google Drive, linked in https://github.com/implus/GFocalV2; they load into this config.
_base_ = './gflv2_r50_coco_ms2x.py'
published = dict(ap=0.458, on='COCO val2017', source='GFocalV2, README')
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
