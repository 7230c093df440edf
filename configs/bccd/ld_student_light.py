# BCCD student distilled from the teacher, default recipe.
_base_ = './student.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/teacher.py', checkpoint='work_dirs/bccd/teacher/best.pth'),
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2),
    ])
