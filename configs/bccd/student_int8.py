# The control of ld_student_int8.py: the same student and fine-tuning, on ground truth alone.
_base_ = '../compare/bccd_student.py'
model = dict(
    type='QuantizedDetector',
    quantization=dict(kind='int8', scales='work_dirs/quantization/student.int8.onnx.json'))
load_from = 'work_dirs/compare/bccd/crosskd__cut_at_the_end_seed0/best.pth'

epochs = 6
train_cfg = dict(max_epochs=epochs, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.0002))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', begin=0, end=epochs, T_max=epochs, by_epoch=True, convert_to_iter_based=True)
]
