# A distilled student of BCCD, fine-tuned as its int8 file computes: the teacher wins back what quantization lost.
# The student is the one of configs/compare (an eighth of ResNet-18's width) with the recipe that measured best there.
# First: the float student's file, and its scales: `make quantization` does all of it.
_base_ = ['../compare/bccd_student.py', '../_base_/default_recipe.py']
model = dict(
    type='QuantizedDistilledDetector',
    quantization=dict(kind='int8', scales='work_dirs/quantization/student.int8.onnx.json'),
    teacher=dict(
        config='{{ fileDirname }}/teacher.py', checkpoint='work_dirs/bccd/teacher/best.pth',
        cache='work_dirs/compare/teacher_outputs'),
    **_base_.default_recipe)
load_from = 'work_dirs/compare/bccd/crosskd__cut_at_the_end_seed0/best.pth'

epochs = 6
train_cfg = dict(max_epochs=epochs, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.0002))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', begin=0, end=epochs, T_max=epochs, by_epoch=True, convert_to_iter_based=True)
]
