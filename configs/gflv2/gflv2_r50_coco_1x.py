# GFLv2 ResNet-50 baseline, COCO 1x. Published AP 41.0 (GFocalV2), 41.1 (LD's paper).
_base_ = '../gfl/gfl_r50_fpn_coco_1x.py'
published = dict(_delete_=True, ap=0.410, on='COCO val2017', source='GFocalV2, README')
model = dict(bbox_head=dict(type='GFLv2VotingHead', reg_topk=4, reg_channels=64, add_mean=True))
