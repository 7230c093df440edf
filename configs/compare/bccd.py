# What each recipe is worth on BCCD for a small student: `ld-deploy compare configs/compare/bccd.py`.
# The teacher is the one that `ld-deploy train configs/bccd/teacher.py` leaves.
_base_ = './_rows.py'
student = '{{ fileDirname }}/bccd_student.py'
teacher = dict(
    config='{{ fileDirname }}/../bccd/teacher.py',
    checkpoint='work_dirs/bccd/teacher/best.pth',
    cache='work_dirs/compare/teacher_outputs')
gflv2 = '{{ fileDirname }}/bccd_gflv2_student.py'
rows = [
    *_base_.rows,
    # Cut at the end of both towers: the teacher's predictors alone read the student's features, which costs little.
    dict(name='CrossKD, cut at the end', distill=_base_.crosskd, cross=dict(convs=2, teacher_convs=2), seeds=3),
    dict(name='GFLv2', student=gflv2),
    dict(name='GFLv2, main + VLR LD', student=gflv2, distill=[_base_.main_ld, _base_.vlr_ld]),
]
