# The demo's student, distilled from its teacher. Default recipe: nothing depends on the batch size.
_base_ = ['./student.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(config='{{ fileDirname }}/teacher.py', checkpoint='outputs/demo/teacher/last.pth'),
    **_base_.default_recipe)
