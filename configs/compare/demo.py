# What each recipe is worth on the demo's data: `ld-deploy compare configs/compare/demo.py`, after `make demo`.
_base_ = './_rows.py'
student = '{{ fileDirname }}/../demo/student.py'
teacher = dict(config='outputs/demo/configs/teacher.py', checkpoint='outputs/demo/teacher/last.pth')
gflv2 = '{{ fileDirname }}/demo_gflv2_student.py'
rows = [
    *_base_.rows,
    # Cut at the end of both towers: the teacher's predictors alone read the student's features, which costs little.
    dict(name='CrossKD, cut at the end', distill=_base_.crosskd, cross=dict(convs=1, teacher_convs=2), seeds=3),
    dict(name='GFLv2', student=gflv2),
    dict(name='GFLv2, main + VLR LD', student=gflv2, distill=[_base_.main_ld, _base_.vlr_ld]),
]
