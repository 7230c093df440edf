# LD in the main region only, ResNet-101-DCN -> ResNet-34, VOC 07+12, as published. Published AP 56.7, 56.5 as weights.
# Train the teacher first: ld-deploy train configs/voc/gfl_r101dcn_voc.py
_base_ = './gfl_r34_voc.py'
published = dict(ap=0.567, ap50=0.784, ap75=0.621, on='VOC2007 test', source='LD, README, VOC table')
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/gfl_r101dcn_voc.py', checkpoint='work_dirs/gfl_r101dcn_voc/best.pth'),
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
train_dataloader = dict(batch_size=3)
