# Self-LD in the main region only, ResNeXt-101-32x4d-DCN -> itself, COCO 1x, as published. Published AP 47.5.
# Train the teacher first: ld-deploy train configs/gfl/gfl_x101dcn_fpn_coco_1x.py
_base_ = '../gfl/gfl_x101dcn_fpn_coco_1x.py'
published = dict(ap=0.475, ap50=0.658, ap75=0.518, on='COCO val2017', source='LD, README, Self-LD table')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_x101dcn_fpn_coco_1x.py',
        checkpoint='work_dirs/gfl_x101dcn_fpn_coco_1x/best.pth'),
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
train_dataloader = dict(batch_size=2)
