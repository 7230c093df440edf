# Your own rotated boxes in DOTA's text format, ResNet-18 student without a teacher. Change data_root and classes; the
# rest follows. Large images: cut them first, `ld-deploy split-dota`. COCO with polygons: type='RotatedCocoDataset'.
_base_ = '../_base_/rotated_gfl.py'
data = dict(data_root='data/mine/', metainfo=dict(classes=('first', 'second')))
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
    bbox_head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(
    ann_file='train/labelTxt', data_prefix=dict(_delete_=True, img='train/images'), **data))
val_dataloader = dict(dataset=dict(ann_file='val/labelTxt', data_prefix=dict(_delete_=True, img='val/images'), **data))
test_dataloader = dict(dataset=dict(
    ann_file='test/labelTxt', data_prefix=dict(_delete_=True, img='test/images'), **data))
