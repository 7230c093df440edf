# Data in VOC's XML format, measured with COCO's AP. A config that inherits it names data_root and metainfo.
_base_ = './gfl.py'
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'))
]
train_dataloader = dict(dataset=dict(
    type='VOCFormatDataset',
    ann_file='ImageSets/Main/train.txt',
    data_prefix=dict(_delete_=True, sub_data_root=''),
    filter_cfg=dict(_delete_=True)))
val_dataloader = dict(dataset=dict(
    type='VOCFormatDataset',
    ann_file='ImageSets/Main/val.txt',
    data_prefix=dict(_delete_=True, sub_data_root=''),
    pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(
    type='VOCFormatDataset',
    ann_file='ImageSets/Main/test.txt',
    data_prefix=dict(_delete_=True, sub_data_root=''),
    pipeline=test_pipeline))
val_evaluator = dict(_delete_=True, type='CocoMetric', metric='bbox', classwise=True)
test_evaluator = val_evaluator
