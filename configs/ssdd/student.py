# Rotated SSDD (ships in radar images, some 500 px, 1 class), from scratch: ResNet-18 at an eighth of its width.
# Data: the mmrotate layout of rotated SSDD (train/images, train/labelTxt, test/all/...) at data/ssdd. Of its 928 training
# images 25 are copies of others or of test images and are left out; every eighth of the rest is val.
_base_ = '../_base_/rotated_gfl.py'
data = dict(data_root='data/ssdd/', metainfo=dict(classes=('ship', )))
folders = dict(ann_file='train/labelTxt', data_prefix=dict(_delete_=True, img='train/images'))
clean = dict(leave_out=['test/all/images'], unique=True)
scale = (448, 448)
model = dict(
    backbone=dict(
        depth=18, base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False,
        zero_init_residual=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=32, num_outs=3),
    bbox_head=dict(
        num_classes=1, in_channels=32, feat_channels=32, stacked_convs=2,
        anchor_generator=dict(octave_base_scale=4, strides=[8, 16, 32])))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, box_type='rbox'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.8, 1.2), keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, box_type='rbox'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
loading = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=8, **loading,
    dataset=dict(split='{{ fileDirname }}/train.txt', pipeline=train_pipeline, **data, **folders, **clean))
val_dataloader = dict(
    batch_size=1, **loading,
    dataset=dict(split='{{ fileDirname }}/val.txt', pipeline=test_pipeline, **data, **folders, **clean))
test_dataloader = dict(
    batch_size=1, **loading,
    dataset=dict(
        ann_file='test/all/labelTxt', data_prefix=dict(_delete_=True, img='test/all/images'), pipeline=test_pipeline,
        **data))

epochs = 12
auto_scale_lr = dict(enable=False)
train_cfg = dict(max_epochs=epochs, val_interval=3)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2))
warm_up = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=60)
param_scheduler = [
    warm_up,
    dict(type='CosineAnnealingLR', begin=0, end=epochs, T_max=epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=10))
env_cfg = dict(cudnn_benchmark=False)
