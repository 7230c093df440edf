# Imitation inside the ground truth, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 40.7.
# The released code calls this 'fitnet'.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.407, ap50=0.586, ap75=0.442, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(distill=[dict(type='FeatureKD', region='inside_gt', weight=2.0)])
