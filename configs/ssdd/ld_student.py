# SSDD student distilled from the teacher: the default recipe.
_base_ = ['./student.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/teacher.py', checkpoint='work_dirs/ssdd/teacher/best.pth'),
    **_base_.default_recipe)
