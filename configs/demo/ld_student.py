# The demo's student, distilled from its teacher. Default recipe: nothing depends on the batch size.
_base_ = './student.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/teacher.py', checkpoint='outputs/demo/teacher/last.pth'),
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2),
    ])
