# ld_student_int8.py in float8, whose three bits of mantissa lose more: there is more to win back.
_base_ = './ld_student_int8.py'
model = dict(quantization=dict(kind='fp8', scales='work_dirs/quantization/student.fp8.onnx.json'))
