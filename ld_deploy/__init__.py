"""Training: distillation on mmdet, data sets, evaluation, checkpoints."""

from ld_deploy.compat import install

install()  # before anything imports mmcv: mmdet needs the compiled ops that the installed mmcv-lite does not have
