# PKD, ResNet-50 -> ResNet-18, COCO 1x, as published. Published AP 38.0.
_base_ = '../ld/ld_r18_r50_coco_1x_published.py'
published = dict(ap=0.380, on='COCO val2017', source='CrossKD, paper')
model = dict(distill=[dict(type='PearsonKD', weight=10)])
