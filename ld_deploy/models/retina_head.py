from __future__ import annotations

from mmdet.models.dense_heads import RetinaHead
from mmdet.registry import MODELS

from ld_deploy.models.distribution_branch import AnchorDistributionBranch


@MODELS.register_module()
class RetinaDistributionHead(AnchorDistributionBranch, RetinaHead):
    """mmdet's RetinaNet head with a distribution box branch, and the deployed file's NMS: see `DistributionBranch`.

    Each of the nine anchors of a location has distributions of its own, measured from the centre that they share.
    """

    box_layer = "retina_reg"
    labels_place = 0
