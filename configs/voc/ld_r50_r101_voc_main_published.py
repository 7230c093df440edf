# LD in the main region only, ResNet-101 -> ResNet-50, VOC 07+12, as published. Published AP 56.1.
# Train the teacher first: ld-deploy train configs/voc/gfl_r101_voc.py
_base_ = './gfl_r50_voc.py'
published = dict(ap=0.561, ap50=0.785, ap75=0.612, on='VOC2007 test', source='LD, README, VOC table')
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/gfl_r101_voc.py', checkpoint='work_dirs/gfl_r101_voc/best.pth'),
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
train_dataloader = dict(batch_size=3)
