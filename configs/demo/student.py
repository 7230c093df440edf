# The demo's student without a teacher: ResNet-18 at a quarter of its width, from scratch on rendered shapes.
_base_ = '../_base_/gfl.py'
root = 'outputs/demo/data/'
meta = dict(classes=('disc', 'striped_disc', 'ring', 'square', 'checked_square', 'dotted_triangle', 'star'))
edges = (128, 128)
model = dict(
    data_preprocessor=dict(pad_size_divisor=32),
    backbone=dict(
        depth=18, base_channels=16, stem_channels=16, frozen_stages=-1, norm_eval=False,
        zero_init_residual=False, init_cfg=None),
    neck=dict(in_channels=[16, 32, 64, 128], out_channels=32, num_outs=3),
    bbox_head=dict(
        num_classes=7, in_channels=32, feat_channels=32, stacked_convs=1,
        anchor_generator=dict(octave_base_scale=4, strides=[8, 16, 32])))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=edges, keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=edges, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
loading = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=8, **loading,
    dataset=dict(
        data_root=root, metainfo=meta, ann_file='annotations/instances_train.json', data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=16, **loading,
    dataset=dict(
        data_root=root, metainfo=meta, ann_file='annotations/instances_val.json', data_prefix=dict(img='val/'),
        pipeline=test_pipeline))
test_dataloader = dict(
    batch_size=1, **loading,  # the sizes differ: each image is padded by itself, as in the deployed file
    dataset=dict(
        data_root=root, metainfo=meta, ann_file='annotations/instances_test.json', data_prefix=dict(img='test/'),
        pipeline=test_pipeline))
val_evaluator = dict(ann_file=root + 'annotations/instances_val.json')
test_evaluator = dict(ann_file=root + 'annotations/instances_test.json')

epochs = 11
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(max_epochs=epochs, val_interval=2)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.002, weight_decay=0.05),
    clip_grad=dict(max_norm=10, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.02, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', begin=0, end=epochs, T_max=epochs, by_epoch=True, convert_to_iter_based=True)
]
default_hooks = dict(logger=dict(interval=10))
env_cfg = dict(cudnn_benchmark=False)
