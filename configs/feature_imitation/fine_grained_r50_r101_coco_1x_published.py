# Fine-grained imitation, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 41.1.
# Wang et al. 2019.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.411, ap50=0.588, ap75=0.448, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(distill=[dict(type='FeatureKD', region='fine_grained', weight=2.0)])
