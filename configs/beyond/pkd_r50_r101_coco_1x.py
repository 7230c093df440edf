# PKD, ResNet-101 -> ResNet-50, COCO 1x, as published: Pearson correlation of the necks. Published AP 43.3.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(_delete_=True, ap=0.433, on='COCO val2017', source='PKD, by the CrossKD paper')
model = dict(distill=[dict(type='PearsonKD', weight=10)])
