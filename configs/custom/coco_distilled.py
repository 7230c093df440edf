# The student of coco_baseline.py, distilled from the teacher that coco_teacher.py trained.
_base_ = ['./coco_baseline.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/coco_teacher.py', checkpoint='work_dirs/coco_teacher/best.pth'),
    **_base_.default_recipe)
