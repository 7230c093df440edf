# GFL as this project trains and deploys it: mmdet's R50 1x config with the padding, the candidate rule and the voting
# NMS that the deployed file has. Learning rate 0.01 for 16 images a step, scaled linearly to what a run really has.
_base_ = 'mmdet::gfl/gfl_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['ld_deploy.models'], allow_failed_imports=False)

model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(type='PadMeanPreprocessor'),
    bbox_head=dict(type='GFLVotingHead'),
    test_cfg=dict(
        nms_pre=1000,
        pre_nms_top_k=1000,
        nms=dict(
            type='cluster_diou_nms',
            iou_threshold=0.6,
            distance_exponent=0.8,
            vote_threshold=0.7,
            vote_sigma=0.025)))

auto_scale_lr = dict(enable=True, base_batch_size=16)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP'))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
