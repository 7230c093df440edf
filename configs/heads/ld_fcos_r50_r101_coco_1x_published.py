# LD on FCOS, ResNet-101 -> ResNet-50, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 40.6.
# VLR: points inside a ground truth and not assigned; 0.25 of LD's weight, times the 4 that the recipe divides by.
# Train the teacher first: ld-deploy train configs/heads/fcos_r101_coco_ms2x.py
_base_ = './fcos_r50_coco_1x.py'
published = dict(ap=0.406, on='COCO val2017', source='LD, paper, table of other detectors')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/fcos_r101_coco_ms2x.py', checkpoint='work_dirs/fcos_r101_coco_ms2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25 * 0.25 * 4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
train_dataloader = dict(batch_size=2)
