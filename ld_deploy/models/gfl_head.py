from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmdet.models.dense_heads import GFLHead
from mmdet.registry import MODELS

from ld_deploy.voting_nms import cluster_diou_nms_torch

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

NMS_TYPE = "cluster_diou_nms"


@MODELS.register_module()
class GFLVotingHead(GFLHead):
    """mmdet's GFL head with the candidate rule and the voting NMS that the deployed file has.

    `test_cfg.nms = dict(type='cluster_diou_nms', iou_threshold=0.6, ...)` selects them, any other type leaves mmdet's
    own post-processing untouched. Candidates are mmdet's per level; then the best `test_cfg.pre_nms_top_k` over all
    levels, clipped to the padded canvas, voted in input pixels, and only then brought to the original image and
    clipped to it. The training losses are mmdet's `GFLHead` losses.
    """

    # What `get_targets` returned last; `DistilledDetector` takes it so that targets are assigned once a step.
    assigned: tuple[Any, ...] | None = None

    def get_targets(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """As mmdet's, and remembers the result in `assigned`."""
        targets: tuple[Any, ...] = super().get_targets(*args, **kwargs)
        self.assigned = targets
        return targets

    def _predict_by_feat_single(self, *args: Any, img_meta: dict[str, Any], cfg: Any, **kwargs: Any) -> InstanceData:
        settings = self.test_cfg if cfg is None else cfg
        if settings["nms"]["type"] == NMS_TYPE:
            canvas = img_meta.get("batch_input_shape", img_meta["img_shape"])
            img_meta = {**img_meta, "img_shape": canvas, "content_shape": img_meta["img_shape"]}
        return super()._predict_by_feat_single(*args, img_meta=img_meta, cfg=cfg, **kwargs)

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict[str, Any] | None = None,
    ) -> InstanceData:
        if not with_nms or cfg.nms["type"] != NMS_TYPE or img_meta is None:
            return super()._bbox_post_process(results, cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta)
        best = results.scores.argsort(descending=True, stable=True)[: cfg.pre_nms_top_k]
        nms = {key: value for key, value in cfg.nms.items() if key != "type"}
        boxes, scores, labels = cluster_diou_nms_torch(
            results.bboxes[best],
            results.scores[best],
            results.labels[best],
            score_threshold=cfg.score_thr,
            max_detections=cfg.max_per_img,
            **nms,
        )
        height, width = img_meta["content_shape"]
        if rescale:
            boxes = boxes / boxes.new_tensor(img_meta["scale_factor"]).repeat(2)
            height, width = img_meta["ori_shape"]
        boxes = boxes.clone()
        boxes[:, 0::2] = boxes[:, 0::2].clamp(0, width)
        boxes[:, 1::2] = boxes[:, 1::2].clamp(0, height)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return results.new(bboxes=boxes[inside], scores=scores[inside], labels=labels[inside])
