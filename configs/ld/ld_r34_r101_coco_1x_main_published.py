# LD in the main region only, ResNet-101 -> ResNet-34, COCO 1x, as published. Published AP 39.8.
_base_ = './ld_r34_r101_coco_1x_published.py'
published = dict(ap=0.398, ap50=0.566, ap75=0.431, on='COCO val2017', source='LD, README, main region table')
model = dict(distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
