# The student of voc_baseline.py, distilled from the teacher that voc_teacher.py trained.
_base_ = './voc_baseline.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/voc_teacher.py', checkpoint='work_dirs/voc_teacher/best.pth'),
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2),
    ])
