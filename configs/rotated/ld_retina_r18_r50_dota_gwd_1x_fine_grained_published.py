# Rotated LD with GWD loss and fine-grained imitation, ResNet-50 -> ResNet-18, DOTA-1.0, 1x. No published AP.
# The published config names a teacher of 1x that has no config: this is the one of 2x.
# Train the teacher first: ld-deploy train configs/rotated/retina_r50_dota_gwd_2x.py
_base_ = './retina_r18_dota_gwd_1x.py'
published = dict(_delete_=True, on='DOTA-1.0 val', source='Rotated-LD, configs, without AP')
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/retina_r50_dota_gwd_2x.py', checkpoint='work_dirs/retina_r50_dota_gwd_2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='RotatedLocalizationKD', region='main_and_vlr', weight=30, temperature=5),
        dict(type='RotatedClassificationKD', region='main_and_vlr', weight=30, temperature=5),
        dict(type='FeatureKD', region='fine_grained', weight=2),
    ])
