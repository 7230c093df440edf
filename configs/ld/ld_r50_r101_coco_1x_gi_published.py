# LD and GI, ResNet-101 -> ResNet-50, COCO 1x, as published: Main KD + Main LD + VLR LD + GI. Published AP 42.4.
_base_ = './ld_r50_r101_coco_1x_published.py'
published = dict(_delete_=True, ap=0.424, on='COCO val2017', source='LD, README, pretrained weights')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
        dict(type='FeatureKD', region='gi', weight=2.0),
    ])
