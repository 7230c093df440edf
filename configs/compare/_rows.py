# The recipes that a comparison of this project has, for GFL students with towers of two convolutions or more.
main_ld = dict(type='LocalizationKD', region='main', weight=1.5, temperature=10)
vlr_ld = dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10)
main_kd = dict(type='ClassificationKD', region='main', weight=5, temperature=2)

bckd = [
    dict(type='BinaryClassificationKD', region='full', weight=1.0),
    dict(type='IoULocalizationKD', region='score_gap', weight=4.0)]
pkd = dict(type='PearsonKD', weight=10)
crosskd = [
    dict(type='BinaryClassificationKD', region='full', weight=1.0, branch='cross'),
    dict(type='LocalizationKD', region='teacher_score', weight=68, temperature=1, branch='cross')]

rows = [
    dict(name='baseline', seeds=3),
    dict(name='main LD', distill=[main_ld]),
    dict(name='main + VLR LD', distill=[main_ld, vlr_ld]),
    dict(name='main + VLR LD, main KD', distill=[main_ld, vlr_ld, main_kd]),
    dict(name='main KD', distill=[main_kd]),
    dict(name='BCKD', distill=bckd),
    dict(name='BCKD classes, main + VLR LD', distill=[bckd[0], main_ld, vlr_ld]),
    dict(name='PKD', distill=[pkd]),
    dict(name='BCKD + PKD', distill=[*bckd, pkd]),
    dict(name='CrossKD', distill=crosskd),
    dict(name='published LD recipe', recipe='published', distill=[
        dict(type='LocalizationKD', region='main', weight=0.25, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.25, temperature=10),
        dict(type='ClassificationKD', region='main', weight=10, temperature=2)]),
    dict(name='imitation: full (FitNets)', distill=[dict(type='FeatureKD', region='full', weight=2)]),
    dict(name='imitation: inside ground truth', distill=[dict(type='FeatureKD', region='inside_gt', weight=2)]),
    dict(name='imitation: main', distill=[dict(type='FeatureKD', region='main', weight=2)]),
    dict(name='imitation: fine-grained', distill=[dict(type='FeatureKD', region='fine_grained', weight=2)]),
    dict(name='imitation: DeFeat', distill=[dict(type='FeatureKD', region='foreground_background', weight=2)]),
    dict(name='imitation: GI', distill=[dict(type='FeatureKD', region='gi', weight=2)]),
    dict(name='imitation: teacher score', distill=[dict(type='FeatureKD', region='teacher_score', weight=2)]),
]
