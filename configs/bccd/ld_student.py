# BCCD student distilled from the teacher: default recipe, with the weights that docs/results was measured with. The demo
# later did better with a quarter of them.
_base_ = './student.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/teacher.py', checkpoint='work_dirs/bccd/teacher/best.pth'),
    distill=[
        dict(type='LocalizationKD', region='main', weight=6, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=1.5, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
