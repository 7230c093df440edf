# Imitation in the main region, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 41.1.
# Not in the released code: here the positives are weighted by the student's best score, as in Main LD.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.411, ap50=0.587, ap75=0.444, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(distill=[dict(type='FeatureKD', region='main', weight=2.0)])
