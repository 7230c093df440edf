# Your own data in VOC format (JPEGImages, Annotations, ImageSets/Main/{train,val,test}.txt), ResNet-18 student.
_base_ = '../_base_/voc_format.py'
data = dict(data_root='data/mine/', metainfo=dict(classes=('first', 'second')))
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
    bbox_head=dict(num_classes=2))
train_dataloader = dict(dataset=dict(**data))
val_dataloader = dict(dataset=dict(**data))
test_dataloader = dict(dataset=dict(**data))
