# LD on RetinaNet, ResNet-101 -> ResNet-50, COCO 1x, as published: Main KD + Main LD + VLR LD. Published AP 39.0.
# One softmax over all four sides; 0.03 of LD's weight in the VLR, times the 4 that the recipe divides by.
# Train the teacher first: ld-deploy train configs/heads/retina_r101_coco_ms2x.py
_base_ = './retina_r50_coco_1x.py'
published = dict(ap=0.390, on='COCO val2017', source='LD, paper, table of other detectors')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/retina_r101_coco_ms2x.py', checkpoint='work_dirs/retina_r101_coco_ms2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='LocalizationKD', region='main', weight=5, temperature=10, joint_edges=True),
        dict(
            type='LocalizationKD', region=dict(type='vlr', exclude_positives=True), weight=0.03 * 5 * 4,
            temperature=10, joint_edges=True),
        dict(type='ClassificationKD', region='main', weight=10, temperature=8),
    ])
train_dataloader = dict(batch_size=2)
