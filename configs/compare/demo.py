# What each recipe is worth on the demo's data: `ld-deploy compare configs/compare/demo.py`, after `make demo`.
_base_ = './_rows.py'
student = '{{ fileDirname }}/../demo/student.py'
teacher = dict(config='outputs/demo/configs/teacher.py', checkpoint='outputs/demo/teacher/last.pth')
gflv2 = '{{ fileDirname }}/demo_gflv2_student.py'
rows = [
    *_base_.rows,
    dict(name='GFLv2', student=gflv2),
    dict(name='GFLv2, main + VLR LD', student=gflv2, distill=[_base_.main_ld, _base_.vlr_ld]),
]
