# The default recipe: of those in configs/compare the one that measured best. The student's head features go through the
# teacher's frozen predictors; what comes out is compared with what the teacher says: class scores, and edge distributions
# (localization distillation) wherever the teacher sees something.
# `_base_ = ['./student.py', '../_base_/default_recipe.py']`, then model = dict(..., **_base_.default_recipe).
default_recipe = dict(
    cross=dict(convs='all'),
    distill=[
        dict(type='BinaryClassificationKD', region='full', weight=1.0, branch='cross'),
        # 4 times 17 bins: the divergence is a mean over the bins.
        dict(type='LocalizationKD', region='teacher_score', weight=68, temperature=1, branch='cross'),
    ])
