# A student of BCCD, fine-tuned on ground truth as its int8 file computes: the control of ld_student_int8.py.
# The student is the distilled one of configs/compare (an eighth of ResNet-18's width) with the recipe that measured best
# there. Its float file is quantized first, for the scales: `make quantization` does all of it. For fp8:
# --set model.quantization.kind=fp8 and model.quantization.scales=REPORT.
_base_ = '../compare/bccd_student.py'
model = dict(
    type='QuantizedDetector',
    quantization=dict(kind='int8', scales='work_dirs/quantization/student.int8.onnx.json'))
load_from = 'work_dirs/compare/bccd/crosskd__cut_at_the_end_seed0/best.pth'

# A tenth of the rate that the float student was trained with, and a third of its epochs.
epochs = 6
train_cfg = dict(max_epochs=epochs, val_interval=1)
auto_scale_lr = dict(enable=True, base_batch_size=8)
optim_wrapper = dict(optimizer=dict(lr=0.0002))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', begin=0, end=epochs, T_max=epochs, by_epoch=True, convert_to_iter_based=True)
]
