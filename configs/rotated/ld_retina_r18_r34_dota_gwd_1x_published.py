# Rotated LD with GWD loss, ResNet-34 -> ResNet-18, DOTA-1.0, 1x, as published: LD + KD. Published AP 40.2 and AP50 66.4.
# The published script adds some of each threshold's AP to the next: without that AP is about 37.5, AP50 the same.
# Train the teacher first: ld-deploy train configs/rotated/retina_r34_dota_gwd_2x.py
_base_ = './retina_r18_dota_gwd_1x.py'
published = dict(
    _delete_=True, ap=0.402, ap50=0.664, on='DOTA-1.0 val',
    source='Rotated-LD, README; about 37.5 without the error of its script')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/retina_r34_dota_gwd_2x.py', checkpoint='work_dirs/retina_r34_dota_gwd_2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='RotatedLocalizationKD', region='main_and_vlr', weight=10, temperature=5),
        dict(type='RotatedClassificationKD', region='main_and_vlr', weight=20, temperature=5),
    ])
