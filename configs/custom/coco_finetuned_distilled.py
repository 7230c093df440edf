# The student of coco_finetuned.py, distilled from the teacher that coco_finetuned_teacher.py trained.
_base_ = ['./coco_finetuned.py', '../_base_/default_recipe.py']
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/coco_finetuned_teacher.py',
        checkpoint='work_dirs/coco_finetuned_teacher/best.pth'),
    **_base_.default_recipe)
