# LD in the main region only, ResNet-101 -> ResNet-50, COCO 1x, as published. Published AP 41.1.
_base_ = './ld_r50_r101_coco_1x_published.py'
published = dict(ap=0.411, ap50=0.587, ap75=0.449, on='COCO val2017', source='LD, README, main region table')
model = dict(distill=[dict(type='LocalizationKD', region='main', weight=0.25, temperature=10)])
train_dataloader = dict(batch_size=3)  # the table's mini-batch of 6 on 2 GPUs
