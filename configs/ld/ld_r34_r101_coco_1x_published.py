# LD, ResNet-101 -> ResNet-34, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 41.0.
_base_ = './ld_r18_r101_coco_1x_published.py'
published = dict(ap=0.410, on='COCO val2017', source='LD, README, pretrained weights')
model = dict(
    backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
