# LD on ATSS, ResNet-101 -> ResNet-50, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 41.6.
# 0.15 of LD's weight in the VLR, times the 4 that the recipe divides by.
# Train the teacher first: ld-deploy train configs/heads/atss_r101_coco_ms2x.py
_base_ = './atss_r50_coco_1x.py'
published = dict(ap=0.416, on='COCO val2017', source='LD, paper, table of other detectors')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/atss_r101_coco_ms2x.py', checkpoint='work_dirs/atss_r101_coco_ms2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.15 * 0.25 * 4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
train_dataloader = dict(batch_size=2)
