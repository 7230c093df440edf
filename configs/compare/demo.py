# What each recipe is worth on the demo's data: `ld-deploy compare configs/compare/demo.py`, after `make demo`.
_base_ = './_rows.py'
student = '{{ fileDirname }}/../demo/student.py'
teacher = dict(config='outputs/demo/configs/teacher.py', checkpoint='outputs/demo/teacher/last.pth')
