from __future__ import annotations

from mmdet.models.dense_heads import ATSSHead
from mmdet.registry import MODELS

from ld_deploy.models.distribution_branch import AnchorDistributionBranch


@MODELS.register_module()
class ATSSDistributionHead(AnchorDistributionBranch, ATSSHead):
    """mmdet's ATSS head with a distribution box branch, and the deployed file's NMS: see `DistributionBranch`.

    Class, box and centerness losses are mmdet's. Scores are the class probability times the centerness; the
    distillation looks at the class alone, as the published code does.
    """

    box_layer = "atss_reg"
    labels_place = 1
