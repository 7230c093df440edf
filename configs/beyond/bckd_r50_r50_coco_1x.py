# BCKD, ResNet-50 -> itself, COCO 1x. Published AP 40.9.
_base_ = './bckd_r50_r101_coco_1x.py'
published = dict(_delete_=True, ap=0.409, on='COCO val2017', source='BCKD, paper')
model = dict(
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r50_fpn_coco_1x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth'))  # noqa
