# LD, ResNet-101 -> MobileNetV2, COCO 1x, default recipe. No published row.
_base_ = ['./ld_r18_r101_coco_1x.py', '../_base_/mobilenet_v2.py']
published = None
model = dict(**_base_.mobilenet_v2)
