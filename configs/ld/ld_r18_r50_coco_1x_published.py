# LD, ResNet-50 -> ResNet-18, COCO 1x: the row that CrossKD compares with. Published AP 37.8.
_base_ = './ld_r18_r101_coco_1x_published.py'
published = dict(ap=0.378, on='COCO val2017', source='CrossKD, paper')
model = dict(
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r50_fpn_coco_1x.py',
        checkpoint='https://download.openmmlab.com/mmdetection/v2.0/gfl/gfl_r50_fpn_1x_coco/gfl_r50_fpn_1x_coco_20200629_121244-25944287.pth'))  # noqa
train_dataloader = dict(batch_size=2)
