# Self-LD, ResNet-18 -> ResNet-18, COCO 1x, default recipe. No published row: see ld_r18_r18_coco_1x_published.py.
# Train the teacher first: ld-deploy train configs/gfl/gfl_r18_fpn_coco_1x.py
_base_ = '../ld/ld_r18_r101_coco_1x.py'
published = None
model = dict(
    teacher=dict(
        config='{{ fileDirname }}/../gfl/gfl_r18_fpn_coco_1x.py',
        checkpoint='work_dirs/gfl_r18_fpn_coco_1x/best.pth'))
