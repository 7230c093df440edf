# LD on GFLv2, ResNet-101-DCN -> ResNet-101, COCO 2x, as published: Main KD + Main LD + VLR LD.
# Published test-dev AP 47.1.
# The released file of this pair does not run; it has other weights (Main KD 5, GI imitation, no DFL).
# Train the teacher first: ld-deploy train configs/gflv2/gflv2_r101dcn_coco_ms2x.py
_base_ = './ld_gflv2_r101_r101dcn_coco_2x_main_published.py'
published = dict(_delete_=True, ap=0.471, on='COCO test-dev', source='LD, README, pretrained weights')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
