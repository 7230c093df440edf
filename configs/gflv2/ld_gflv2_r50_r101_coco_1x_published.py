# LD on GFLv2, ResNet-101 -> ResNet-50, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 42.7.
# The released file adds GI imitation on raw teacher logits, which the row's name has not.
# Train the teacher first: ld-deploy train configs/gflv2/gflv2_r101_coco_ms2x.py
_base_ = './gflv2_r50_coco_1x.py'
published = dict(ap=0.427, on='COCO val2017', source='LD, README, pretrained weights')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/gflv2_r101_coco_ms2x.py', checkpoint='work_dirs/gflv2_r101_coco_ms2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
train_dataloader = dict(batch_size=3)
