# PASCAL VOC as LD publishes it: trained on 07+12 trainval three times an epoch, four epochs with a step after the third
# (12 in effect), tested on VOC2007 at 1333x800. Twenty classes, 11-point AP over IoU 0.5 to 0.95, no legacy pixel more.
# Small boxes are targets, as published: mmdet's own VOC config leaves out those below 32 px. Validation is on the test
# set, as published: best.pth is chosen there, so report last.pth.
_base_ = './gfl.py'
voc2007 = dict(
    type='VOCDataset',
    data_root='data/VOCdevkit/',
    ann_file='VOC2007/ImageSets/Main/trainval.txt',
    data_prefix=dict(sub_data_root='VOC2007/'),
    filter_cfg=dict(filter_empty_gt=True, min_size=32),
    pipeline={{_base_.train_pipeline}})
voc2012 = dict(voc2007, ann_file='VOC2012/ImageSets/Main/trainval.txt', data_prefix=dict(sub_data_root='VOC2012/'))
model = dict(bbox_head=dict(num_classes=20))
train_dataloader = dict(dataset=dict(
    _delete_=True,
    type='RepeatDataset',
    times=3,
    # Their `dataset_type` says VOC2007 or VOC2012, and differs.
    dataset=dict(type='ConcatDataset', ignore_keys=['dataset_type'], datasets=[voc2007, voc2012])))
val_dataloader = dict(dataset=dict(
    type='VOCDataset',
    data_root='data/VOCdevkit/',
    ann_file='VOC2007/ImageSets/Main/test.txt',
    data_prefix=dict(_delete_=True, sub_data_root='VOC2007/')))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='VOCRangeMetric', eval_mode='11points')
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=4)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=4, by_epoch=True, milestones=[3], gamma=0.1)
]
default_hooks = dict(checkpoint=dict(save_best='pascal_voc/AP', rule='greater'))
