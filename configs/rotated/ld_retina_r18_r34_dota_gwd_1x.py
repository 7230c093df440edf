# Rotated LD with GWD loss, ResNet-34 -> ResNet-18, DOTA-1.0, 1x, default recipe.
# No published row: the published recipe is in ld_retina_r18_r34_dota_gwd_1x_published.py.
# Train the teacher first: ld-deploy train configs/rotated/retina_r34_dota_gwd_2x.py
_base_ = ['./retina_r18_dota_gwd_1x.py', '../_base_/default_recipe.py']
published = None
model = dict(
    type='DistilledDetector',
    teacher=dict(
        config='{{ fileDirname }}/retina_r34_dota_gwd_2x.py', checkpoint='work_dirs/retina_r34_dota_gwd_2x/best.pth'),
    **_base_.default_recipe)
