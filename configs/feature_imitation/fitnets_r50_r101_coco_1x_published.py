# FitNets, the whole neck, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 40.7.
# The released code calls inside-GT 'fitnet'; this is the whole map, as in FitNets.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.407, ap50=0.586, ap75=0.440, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(distill=[dict(type='FeatureKD', region='full', weight=2.0)])
