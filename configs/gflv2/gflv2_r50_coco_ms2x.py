# GFLv2 ResNet-50, COCO 2x with multi-scale training. Published AP 43.9, test-dev 44.4.
_base_ = '../gfl/gfl_r50_fpn_coco_ms2x.py'
published = dict(ap=0.439, on='COCO val2017', source='GFocalV2, README')
model = dict(bbox_head=dict(type='GFLv2VotingHead', reg_topk=4, reg_channels=64, add_mean=True))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=[(1333, 480), (1333, 960)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
