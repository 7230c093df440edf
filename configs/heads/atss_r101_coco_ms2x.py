# ATSS with a distribution box branch, ResNet-101, COCO 2x with multi-scale training: a teacher. No published AP.
_base_ = ['./atss_r50_coco_1x.py', '../_base_/ms2x.py']
published = dict(_delete_=True, on='COCO val2017', source='LD, configs: no AP given')
model = dict(
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
train_dataloader = dict(dataset=dict(pipeline={{_base_.multi_scale}}))
train_cfg = dict(max_epochs=24)
param_scheduler = {{_base_.steps_2x}}
