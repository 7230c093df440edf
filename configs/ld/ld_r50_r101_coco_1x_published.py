# LD, ResNet-101 -> ResNet-50, COCO 1x, as the published code computes it. Published AP 42.1.
_base_ = './ld_r18_r101_coco_1x_published.py'
model = dict(
    backbone=dict(depth=50, init_cfg=dict(checkpoint='torchvision://resnet50')),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
train_dataloader = dict(batch_size=2)
