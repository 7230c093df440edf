# GFL for rotated boxes: the centre, both sides and the angle, each a distribution; data in DOTA's text format. A config that inherits it names data_root, the folders and metainfo.
_base_ = './gfl.py'
model = dict(
    bbox_head=dict(
        type='RotatedGFLHead',
        anchor_generator=dict(type='RotatedAnchorGenerator'),
        loss_bbox=dict(_delete_=True, type='TargetKLDLoss', loss_weight=2.0)),
    test_cfg=dict(
        nms=dict(_delete_=True, type='rotated_cluster_nms', iou_threshold=0.1, vote_threshold=0.7, vote_sigma=0.025)))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, box_type='rbox'),
    dict(type='Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1024, 1024), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, box_type='rbox'),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))
]
train_dataloader = dict(dataset=dict(
    type='DOTAFormatDataset', filter_cfg=dict(filter_empty_gt=False), pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(type='DOTAFormatDataset', pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(type='DOTAFormatDataset', pipeline=test_pipeline))
val_evaluator = dict(_delete_=True, type='DOTAMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='dota/AP', rule='greater'))
