# LD on GFLv2 in the main region only, ResNet-101 -> ResNet-50, COCO 2x, as published.
# Published test-dev AP 44.8.
# Train the teacher first: ld-deploy train configs/gflv2/gflv2_r101_coco_ms2x.py
_base_ = './gflv2_r50_coco_ms2x.py'
published = dict(ap=0.448, ap50=0.624, ap75=0.490, on='COCO test-dev', source='LD, README of 2021-02, GFocalV2 table')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/gflv2_r101_coco_ms2x.py', checkpoint='work_dirs/gflv2_r101_coco_ms2x/best.pth'),
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
