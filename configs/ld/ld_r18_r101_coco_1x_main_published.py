# LD in the main region only, ResNet-101 -> ResNet-18, COCO 1x, as published. Published AP 36.5.
_base_ = './ld_r18_r101_coco_1x_published.py'
published = dict(ap=0.365, ap50=0.529, ap75=0.393, on='COCO val2017', source='LD, README, main region table')
model = dict(distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
