# Rotated RetinaNet with KLD loss, ResNet-18 baseline, DOTA-1.0, 1x. No published AP.
_base_ = '../_base_/dota.py'
published = dict(on='DOTA-1.0 val', source='Rotated-LD, configs, without AP')
model = dict(bbox_head=dict(loss_bbox=dict(_delete_=True, type='TargetKLDLoss', published=True, loss_weight=1.0)))
