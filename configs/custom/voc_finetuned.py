# The student of voc_baseline.py, from published COCO weights: for data sets too small to start from ImageNet.
# The classifier of other classes is dropped in loading; the log says which weights were not taken.
_base_ = './voc_baseline.py'
load_from = 'https://download.openmmlab.com/mmdetection/v2.0/ld/ld_r18_gflv1_r101_fpn_coco_1x/ld_r18_gflv1_r101_fpn_coco_1x_20220702_062206-330e6332.pth'  # noqa
model = dict(backbone=dict(frozen_stages=2, init_cfg=None))
optim_wrapper = dict(optimizer=dict(lr=0.002))  # a fifth of the rate from ImageNet
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', begin=0, end=24, T_max=24, by_epoch=True, convert_to_iter_based=True)
]
custom_hooks = [dict(type='EarlyStoppingHook', monitor='coco/bbox_mAP', patience=5, min_delta=0.001)]
