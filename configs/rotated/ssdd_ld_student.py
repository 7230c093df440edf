# SSDD student distilled from the teacher: the default recipe.
_base_ = ['./ssdd_student.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/ssdd_teacher.py', checkpoint='work_dirs/ssdd/teacher/best.pth'),
    **_base_.default_recipe)
