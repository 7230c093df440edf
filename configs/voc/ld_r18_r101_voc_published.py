# LD, ResNet-101 -> ResNet-18, VOC 07+12, as published: Main KD + Main LD + VLR LD. Published AP 54.0.
# The weights are called "Main LD + VLR LD + VLR KD". The released code always has Main KD and multiplies VLR KD by 0.
# Train the teacher first: ld-deploy train configs/voc/gfl_r101_voc.py
_base_ = './ld_r18_r101_voc_main_published.py'
published = dict(_delete_=True, ap=0.540, on='VOC2007 test', source='LD, README, pretrained weights')
model = dict(
    distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2),
    ])
