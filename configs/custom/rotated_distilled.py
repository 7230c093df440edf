# The student of rotated_baseline.py, distilled from the teacher that rotated_teacher.py trained.
_base_ = ['./rotated_baseline.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/rotated_teacher.py', checkpoint='work_dirs/rotated_teacher/best.pth'),
    **_base_.default_recipe)
