# Ablation: Main LD + VLR LD, the VLR from gamma = 1, ResNet-101 -> ResNet-50, COCO 1x. Published AP 41.1.
_base_ = './main_ld_vlr_ld.py'
published = dict(ap=0.411, on='COCO val2017', source='LD, paper, gamma table')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region=dict(type='vlr', gamma=1), weight=0.25, temperature=10),
    ])
