# Rotated RetinaNet with GWD loss, ResNet-18 baseline, DOTA-1.0, 1x. Published AP 37.1 and AP50 63.1.
# The published script adds some of each threshold's AP to the next: without that AP is about 34.6, AP50 the same.
_base_ = '../_base_/dota.py'
published = dict(
    ap=0.371, ap50=0.631, on='DOTA-1.0 val', source='Rotated-LD, README; about 34.6 without the error of its script')
