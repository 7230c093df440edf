# LD, ResNet-101 -> ResNet-50, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 42.1.
# "Ours" of the logit vs feature table. The released file adds fine-grained imitation, which the row has not.
_base_ = './ld_r18_r101_coco_1x_published.py'
published = dict(ap=0.421, ap50=0.603, ap75=0.456, on='COCO val2017', source='LD, README, logit vs feature table')
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
train_dataloader = dict(batch_size=2)
