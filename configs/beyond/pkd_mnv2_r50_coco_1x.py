# PKD, ResNet-50 -> MobileNetV2, COCO 1x. Published AP 33.2.
# The source at hand does not say of which detector the published AP is.
_base_ = ['./pkd_r18_r50_coco_1x.py', '../_base_/mobilenet_v2.py']
published = dict(ap=0.332, on='COCO val2017', source='CrossKD, paper, by a note that names no detector')
model = dict(**_base_.mobilenet_v2)
