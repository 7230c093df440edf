# RetinaNet with a distribution box branch, ResNet-50 baseline, COCO 1x. Published AP 36.9.
_base_ = '../_base_/retina.py'
published = dict(ap=0.369, on='COCO val2017', source='LD, paper, table of other detectors')
