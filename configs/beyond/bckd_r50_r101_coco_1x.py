# BCKD, ResNet-101 -> ResNet-50, COCO 1x. Published AP 43.2.
# Binary classification over all locations, and the IoU of the boxes weighted by the gap between the class scores.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.432, ap50=0.616, ap75=0.469, on='COCO val2017', source='BCKD, README and paper')
model = dict(
    distill=[
        dict(type='BinaryClassificationKD', region='full', weight=1.0),
        dict(type='IoULocalizationKD', region='score_gap', weight=4.0),
    ])
