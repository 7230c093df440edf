# The teacher for coco_finetuned_distilled.py: ResNet-101 from published COCO weights. Train it first.
_base_ = './coco_finetuned.py'
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth'  # noqa
model = dict(backbone=dict(depth=101), neck=dict(in_channels=[256, 512, 1024, 2048]))
