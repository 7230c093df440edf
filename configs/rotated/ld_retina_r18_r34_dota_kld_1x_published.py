# Rotated LD with KLD loss, ResNet-34 -> ResNet-18, DOTA-1.0, 1x, as published: LD + KD. No published AP.
# Train the teacher first: ld-deploy train configs/rotated/retina_r34_dota_kld_2x.py
_base_ = './retina_r18_dota_kld_1x.py'
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/retina_r34_dota_kld_2x.py', checkpoint='work_dirs/retina_r34_dota_kld_2x/best.pth'),
    recipe='published',
    distill=[
        dict(type='RotatedLocalizationKD', region='main_and_vlr', weight=15, temperature=5),
        dict(type='RotatedClassificationKD', region='main_and_vlr', weight=15, temperature=5),
    ])
published = dict(on='DOTA-1.0 val', source='Rotated-LD, configs, without AP')
