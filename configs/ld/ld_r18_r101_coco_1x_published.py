# LD, ResNet-101 -> ResNet-18, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 37.5.
# This recipe's box terms grow with the images per GPU: keep batch_size at the published 3.
_base_ = '../gfl/gfl_r18_fpn_coco_1x.py'
published = dict(_delete_=True, ap=0.375, on='COCO val2017', source='LD, README, pretrained weights')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r101_fpn_coco_ms2x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth'),  # noqa
    recipe='published',
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
train_dataloader = dict(batch_size=3)
