# FCOS with a distribution box branch: mmdet's FCOS (Caffe backbone) on the data and the deployment of gfl.py.
# Centre sampling, GIoU, centerness on the box branch, as the published LD heads have it.
_base_ = './gfl.py'
model = dict(
    data_preprocessor=dict(mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0], bgr_to_rgb=False),
    backbone=dict(
        style='caffe', norm_cfg=dict(requires_grad=False),
        init_cfg=dict(checkpoint='open-mmlab://detectron/resnet50_caffe')),
    neck=dict(relu_before_extra_convs=True),
    bbox_head=dict(
        _delete_=True,
        type='FCOSDistributionHead',
        num_classes=80,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        strides=[8, 16, 32, 64, 128],
        reg_max=16,
        center_sampling=True,
        centerness_on_reg=True,
        conv_bias=True,
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GIoULoss', loss_weight=1.0),
        loss_centerness=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0)),
    train_cfg=None)
optim_wrapper = dict(paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1.0 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)
]
