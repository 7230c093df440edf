# Ablation: Main LD + VLR LD, the VLR from gamma = 0.5, ResNet-101 -> ResNet-50, COCO 1x. Published AP 41.7.
_base_ = './main_ld_vlr_ld.py'
published = dict(ap=0.417, on='COCO val2017', source='LD, paper, gamma table')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region=dict(type='vlr', gamma=0.5), weight=0.25, temperature=10),
    ])
