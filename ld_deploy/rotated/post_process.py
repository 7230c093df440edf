from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_deploy.rotated.box_type import RotatedBoxes
from ld_deploy.rotated_voting_nms import rotated_cluster_nms_torch
from ld_runtime.errors import ConfigError
from ld_runtime.rotated_nms import RotatedNmsSettings

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

NMS_TYPE = "rotated_cluster_nms"


class RotatedPostProcess:
    """Gives an mmdet dense head of rotated boxes the candidate rule and the voting NMS that the deployed file has.

    To be inherited before the head. `test_cfg.nms = dict(type='rotated_cluster_nms', iou_threshold=0.1, ...)`, see
    `RotatedNmsSettings`; the best `test_cfg.pre_nms_top_k` over all levels take part. Boxes are voted in input pixels
    and then brought to the original image; they are not clipped.
    """

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict[str, Any] | None = None,
    ) -> InstanceData:
        boxes, scores, labels = results.bboxes, results.scores, results.labels
        if with_nms:
            nms = dict(cfg.nms)
            if nms.pop("type") != NMS_TYPE:
                raise ConfigError(f"the NMS of rotated boxes is {NMS_TYPE!r}, test_cfg.nms.type is {cfg.nms.type!r}")
            best = scores.argsort(descending=True, stable=True)[: cfg.pre_nms_top_k]
            settings = RotatedNmsSettings(score_threshold=cfg.score_thr, max_detections=cfg.max_per_img, **nms)
            candidates = boxes[best], scores[best], labels[best]
            boxes, scores, labels = rotated_cluster_nms_torch(*candidates, settings=settings)
        found = RotatedBoxes(boxes, clone=False)
        if rescale and img_meta is not None:
            width, height = img_meta["scale_factor"]
            found.rescale_((1 / width, 1 / height))
        return results.new(bboxes=found.tensor, scores=scores, labels=labels)
