# LD in the main region only, ResNet-101-DCN -> ResNet-101, COCO 2x, multi-scale, as published. Published AP 45.4.
_base_ = '../gfl/gfl_r101_fpn_coco_ms2x.py'
published = dict(ap=0.454, ap50=0.631, ap75=0.495, on='COCO val2017', source='LD, README, main region table')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r101dcn_fpn_coco_ms2x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco/gfl_r101_fpn_dconv_c3-c5_mstrain_2x_coco_20200630_102002-134b07df.pth'),  # noqa
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
train_dataloader = dict(batch_size=3)
