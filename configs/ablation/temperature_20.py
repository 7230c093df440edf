# Ablation: Main LD at temperature 20, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 40.5.
# Temperature 10 is ../ld/ld_r50_r101_coco_1x_main_published.py.
_base_ = '../ld/ld_r50_r101_coco_1x_main_published.py'
published = dict(_delete_=True, ap=0.405, on='COCO val2017', source='LD, paper, temperature table')
model = dict(distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=20)])
