# ATSS with a distribution box branch, ResNet-50 baseline, COCO 1x. Published AP 39.2.
_base_ = '../_base_/atss.py'
published = dict(ap=0.392, on='COCO val2017', source='LD, paper, table of other detectors')
