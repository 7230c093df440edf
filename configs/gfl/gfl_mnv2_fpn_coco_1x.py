# GFL MobileNetV2 baseline, COCO 1x. Published AP 30.9.
# The source at hand does not say of which detector the published AP is.
_base_ = ['../_base_/gfl.py', '../_base_/mobilenet_v2.py']
published = dict(ap=0.309, on='COCO val2017', source='CrossKD, paper, by a note that names no detector')
model = dict(**_base_.mobilenet_v2)
