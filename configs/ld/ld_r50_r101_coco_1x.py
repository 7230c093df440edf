# LD, ResNet-101 -> ResNet-50, COCO 1x, default recipe: nothing depends on the images per GPU.
_base_ = '../gfl/gfl_r50_fpn_coco_1x.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r101_fpn_coco_ms2x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r101_fpn_mstrain_2x_coco/gfl_r101_fpn_mstrain_2x_coco_20200629_200126-dd12f847.pth'),  # noqa
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2),
    ])
