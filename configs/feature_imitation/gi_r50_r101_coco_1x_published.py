# GI imitation, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 41.5.
# Dai et al. 2021.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.415, ap50=0.596, ap75=0.452, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(distill=[dict(type='FeatureKD', region='gi', weight=2.0)])
