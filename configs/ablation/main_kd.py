# Ablation: Main KD alone, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 40.2.
# Main LD alone is ../ld/ld_r50_r101_coco_1x_main_published.py, Main KD + Main LD + VLR LD the file without `main`.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(_delete_=True, ap=0.402, on='COCO val2017', source='LD, paper, region table')
model = dict(distill=[dict(type='ClassificationKD', region='main', weight=10, temperature=2)])
