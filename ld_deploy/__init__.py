"""Training: distillation on mmdet, data sets, evaluation, checkpoints."""
