# Ablation: Main LD + VLR LD, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 41.8.
# The VLR begins at gamma = 0.25 times ATSS's threshold; the other values are in gamma_*.py.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(_delete_=True, ap=0.418, on='COCO val2017', source='LD, paper, region table')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
    ])
