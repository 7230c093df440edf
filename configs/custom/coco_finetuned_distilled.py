# The student of coco_finetuned.py, distilled from the teacher that coco_finetuned_teacher.py trained.
_base_ = './coco_finetuned.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/coco_finetuned_teacher.py',
        checkpoint='work_dirs/coco_finetuned_teacher/best.pth'),
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2),
    ])
