# student_int8.py with its teacher: distillation wins back what quantization lost.
_base_ = ['./student_int8.py', '../_base_/default_recipe.py']
model = dict(
    type='QuantizedDistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/teacher.py', checkpoint='work_dirs/bccd/teacher/best.pth',
        cache='work_dirs/compare/teacher_outputs'),
    **_base_.default_recipe)
