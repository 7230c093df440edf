from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_deploy.voting_nms import cluster_diou_nms_torch

if TYPE_CHECKING:
    from mmengine.structures import InstanceData

NMS_TYPE = "cluster_diou_nms"


class VotingPostProcess:
    """Gives an mmdet dense head the candidate rule and the voting NMS that the deployed file has.

    To be inherited before the head. `test_cfg.nms = dict(type='cluster_diou_nms', iou_threshold=0.6, ...)` selects
    them, any other type leaves the head's own post-processing untouched. Candidates are mmdet's per level; then the
    best `test_cfg.pre_nms_top_k` over all levels, clipped to the padded canvas, voted in input pixels, and only then
    brought to the original image and clipped to it.
    """

    test_cfg: Any

    def _predict_by_feat_single(self, *args: Any, img_meta: dict[str, Any], cfg: Any, **kwargs: Any) -> InstanceData:
        settings = self.test_cfg if cfg is None else cfg
        if settings["nms"]["type"] == NMS_TYPE:
            canvas = img_meta.get("batch_input_shape", img_meta["img_shape"])
            img_meta = {**img_meta, "img_shape": canvas, "content_shape": img_meta["img_shape"]}
        return super()._predict_by_feat_single(*args, img_meta=img_meta, cfg=cfg, **kwargs)  # type: ignore[misc] # the head's

    def _bbox_post_process(
        self,
        results: InstanceData,
        cfg: Any,
        rescale: bool = False,
        with_nms: bool = True,
        img_meta: dict[str, Any] | None = None,
    ) -> InstanceData:
        if not with_nms or cfg.nms["type"] != NMS_TYPE or img_meta is None:
            return super()._bbox_post_process(  # type: ignore[misc] # the head's
                results, cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta
            )
        score_threshold = cfg.score_thr
        if "score_factors" in results:  # centerness: mmdet multiplies after the threshold, and thresholds no more
            results.scores = results.scores * results.pop("score_factors")
            score_threshold = 0
        best = results.scores.argsort(descending=True, stable=True)[: cfg.pre_nms_top_k]
        nms = {key: value for key, value in cfg.nms.items() if key != "type"}
        boxes, scores, labels = cluster_diou_nms_torch(
            results.bboxes[best],
            results.scores[best],
            results.labels[best],
            score_threshold=score_threshold,
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
