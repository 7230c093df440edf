# The student of voc_baseline.py, distilled from the teacher that voc_teacher.py trained.
_base_ = ['./voc_baseline.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/voc_teacher.py', checkpoint='work_dirs/voc_teacher/best.pth'),
    **_base_.default_recipe)
