# GFL ResNet-50, COCO 2x with multi-scale training. Published AP 42.9 (mmdet).
_base_ = ['../_base_/gfl.py', '../_base_/ms2x.py']
published = dict(ap=0.429, on='COCO val2017', source='mmdet 3.3, metafile')
train_dataloader = dict(dataset=dict(pipeline={{_base_.multi_scale}}))
train_cfg = dict(max_epochs=24)
param_scheduler = {{_base_.steps_2x}}
