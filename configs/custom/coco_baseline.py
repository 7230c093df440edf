# Your own data in COCO format, ResNet-18 student without a teacher. Change root and classes; the rest follows.
_base_ = '../gfl/gfl_r18_fpn_coco_1x.py'
root = 'data/mine/'
meta = dict(classes=('first', 'second'))
model = dict(bbox_head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(
    data_root=root, metainfo=meta, ann_file='annotations/train.json', data_prefix=dict(img='train/')))
val_dataloader = dict(dataset=dict(
    data_root=root, metainfo=meta, ann_file='annotations/val.json', data_prefix=dict(img='val/')))
val_evaluator = dict(ann_file=root + 'annotations/val.json')
test_dataloader = dict(dataset=dict(
    data_root=root, metainfo=meta, ann_file='annotations/test.json', data_prefix=dict(img='test/')))
test_evaluator = dict(ann_file=root + 'annotations/test.json')
