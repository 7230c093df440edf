# Rotated RetinaNet with GWD loss, ResNet-34 teacher, DOTA-1.0, 2x. No published AP; its weights are not published.
_base_ = './retina_r18_dota_gwd_1x.py'
published = dict(_delete_=True, on='DOTA-1.0 val', source='Rotated-LD, configs, without AP')
model = dict(backbone=dict(depth=34, init_cfg=dict(checkpoint='torchvision://resnet34')))
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1)
]
