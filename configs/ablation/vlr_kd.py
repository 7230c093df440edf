# Ablation: Main KD + Main LD + VLR LD + VLR KD, ResNet-101 -> ResNet-50, COCO 1x. Published AP 42.0.
# The published code multiplies VLR KD by 0: this computes what the row without it does. The default recipe's is real.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(_delete_=True, ap=0.420, on='COCO val2017', source='LD, paper, region table')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
        dict(type='ClassificationKD', region='vlr', weight=10, temperature=2),
    ])
