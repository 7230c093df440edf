# Rotated RetinaNet on DOTA-1.0 as Rotated-LD publishes it: tiles of 1024 px, trained on train, tested on val. Make them:
# ld-deploy split-dota DOTA/train/images DOTA/train/labelTxt -o data/dota/train, and the same of val.
# Published APs are of whole images, merged from tiles, and of a script that adds a fifteenth of each threshold's sum to
# the next; AP here is of tiles. Images without objects, an error in the published code, are left out in both.
_base_ = './rotated_gfl.py'
model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512], add_extra_convs='on_input'),
    bbox_head=dict(
        _delete_=True,
        type='RotatedRetinaHead',
        num_classes=15,
        in_channels=256,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator=dict(
            type='RotatedAnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[1.0, 0.5, 2.0],
            strides=[8, 16, 32, 64, 128]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='GaussianBoxLoss', distance='gwd', tau=0, loss_weight=5.0)),
    train_cfg=dict(
        assigner=dict(
            _delete_=True, type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1,
            iou_calculator=dict(type='HullOverlaps'))),
    test_cfg=dict(
        nms_pre=2000, pre_nms_top_k=10000, score_thr=0.05, max_per_img=2000,
        nms=dict(vote_threshold=1.0)))  # plain NMS at IoU 0.1: nothing votes

metainfo = dict(classes=(
    'plane', 'baseball-diamond', 'bridge', 'ground-track-field', 'small-vehicle', 'large-vehicle', 'ship',
    'tennis-court', 'basketball-court', 'storage-tank', 'soccer-ball-field', 'roundabout', 'harbor', 'swimming-pool',
    'helicopter'))
data = dict(data_root='data/dota/', metainfo=metainfo)
val = dict(ann_file='val/labelTxt', data_prefix=dict(_delete_=True, img='val/images'), **data)
train_dataloader = dict(
    batch_size=1,
    dataset=dict(
        ann_file='train/labelTxt', data_prefix=dict(_delete_=True, img='train/images'),
        filter_cfg=dict(filter_empty_gt=True), **data))
val_dataloader = dict(dataset=val)
test_dataloader = dict(dataset=val)

auto_scale_lr = dict(base_batch_size=2)
optim_wrapper = dict(optimizer=dict(lr=0.0025), clip_grad=dict(max_norm=35, norm_type=2))
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)
]
