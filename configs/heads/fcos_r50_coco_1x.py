# FCOS with a distribution box branch, ResNet-50 baseline, COCO 1x. Published AP 38.6.
_base_ = '../_base_/fcos.py'
published = dict(ap=0.386, on='COCO val2017', source='LD, paper, table of other detectors')
