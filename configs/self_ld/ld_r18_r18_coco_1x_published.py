# Self-LD in the main region only, ResNet-18 -> ResNet-18, COCO 1x, as published. Published AP 36.1.
# Train the teacher first: ld-deploy train configs/gfl/gfl_r18_fpn_coco_1x.py
_base_ = '../gfl/gfl_r18_fpn_coco_1x.py'
published = dict(ap=0.361, ap50=0.529, ap75=0.385, on='COCO val2017', source='LD, README, Self-LD table')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r18_fpn_coco_1x.py',
        checkpoint='work_dirs/gfl_r18_fpn_coco_1x/best.pth'),
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
train_dataloader = dict(batch_size=3)
