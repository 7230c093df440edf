# DeFeat, ResNet-101 -> ResNet-50, COCO 1x, default recipe. Published AP 40.8.
# The published code of this row crashes. This is what it intends: 2.0 * (mean inside the ground truth + 2 * mean
# outside), over all levels at once.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.408, ap50=0.586, ap75=0.442, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(recipe='default', distill=[dict(type='FeatureKD', region='foreground_background', weight=2.0 * 3)])
