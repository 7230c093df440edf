# student_int8.py in float8: the control of ld_student_fp8.py.
_base_ = './student_int8.py'
model = dict(quantization=dict(kind='fp8', scales='work_dirs/quantization/student.fp8.onnx.json'))
