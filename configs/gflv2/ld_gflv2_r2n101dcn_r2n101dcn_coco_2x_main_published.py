# LD on GFLv2 in the main region only, Res2Net-101-DCN -> itself, COCO 2x, as published.
# Published test-dev AP 51.0.
# Train the teacher first: ld-deploy train configs/gflv2/gflv2_r2n101dcn_coco_ms2x.py
_base_ = './gflv2_r2n101dcn_coco_ms2x.py'
published = dict(ap=0.510, ap50=0.691, ap75=0.559, on='COCO test-dev', source='LD, README of 2021-02, GFocalV2 table')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/gflv2_r2n101dcn_coco_ms2x.py',
        checkpoint='work_dirs/gflv2_r2n101dcn_coco_ms2x/best.pth'),
    recipe='published',
    distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
