# CrossKD + PKD, ResNet-101 -> ResNet-50, COCO 1x. Published AP 43.9.
_base_ = './crosskd_r50_r101_coco_1x.py'
published = dict(ap=0.439, on='COCO val2017', source='CrossKD, README')
model = dict(
    distill=[
        dict(type='BinaryClassificationKD', region='full', weight=1.0, branch='cross'),
        dict(type='LocalizationKD', region='teacher_score', weight=4.0 * 17, temperature=1, branch='cross'),
        dict(type='PearsonKD', weight=6.0),
    ])
