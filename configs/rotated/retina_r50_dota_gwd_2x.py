# Rotated RetinaNet with GWD loss, ResNet-50 teacher, DOTA-1.0, 2x. No published AP; its weights are not published.
_base_ = './retina_r34_dota_gwd_2x.py'
published = dict(_delete_=True, on='DOTA-1.0 val', source='Rotated-LD, configs, without AP')
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
