# CrossKD, ResNet-101 -> ResNet-50, COCO 1x. Published AP 43.7.
# The student's head features after its third convolution, through the rest of the teacher's head. 68 is the published 4
# times 17 bins: the divergence here is a mean over bins.
_base_ = '../ld/ld_r50_r101_coco_1x_published.py'
published = dict(_delete_=True, ap=0.437, on='COCO val2017', source='CrossKD, README')
model = dict(
    distill=[
        dict(type='BinaryClassificationKD', region='full', weight=1.0, branch='cross'),
        dict(type='LocalizationKD', region='teacher_score', weight=4.0 * 17, temperature=1, branch='cross'),
    ],
    cross=dict(convs=3))
