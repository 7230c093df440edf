"""PyTorch as the reference of a deployed file: the same canvas, limits and candidate rule, by mmdet's own test step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_runtime.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mmengine.config import Config

    from ld_export.ground_truth import Truth
    from ld_runtime.model_card import ModelCard, Preprocess

REFERENCE = "PyTorch"
MMDET = "mmdet's own pipeline"


def pipeline_of(pipeline: list[dict[str, Any]], rule: Preprocess) -> list[dict[str, Any]]:
    """A test pipeline with the resize rule of a card in the place of its own."""
    step: dict[str, Any]
    if rule.resize == "letterbox":
        step = {"type": "Letterbox", "input_hw": rule.input_hw}
    elif rule.resize == "stretch":
        assert rule.input_hw is not None
        step = {"type": "Resize", "scale": rule.input_hw[::-1], "keep_ratio": False}
    else:
        step = {"type": "Resize", "scale": rule.scale, "keep_ratio": True}
    return [step if str(one["type"]).endswith(("Resize", "Letterbox")) else dict(one) for one in pipeline]


def like_card(config: Config, card: ModelCard) -> Config:
    """The config with the canvas and the limits that a file was exported with."""
    from mmengine.config import Config

    config = Config(config.to_dict())
    config.model.data_preprocessor.input_hw = card.preprocess.input_hw
    config.model.test_cfg.score_thr = card.nms.score_threshold
    config.model.test_cfg.max_per_img = card.nms.max_detections
    return config


def like_mmdet(config: Config, card: ModelCard) -> Config:
    """The config as plain mmdet has it: class-wise NMS at IoU 0.6, zeros padded after the normalisation."""
    config = like_card(config, card)
    config.model.data_preprocessor.type = "DetDataPreprocessor"
    config.model.data_preprocessor.pop("input_hw")
    config.model.test_cfg.pop("pre_nms_top_k", None)
    config.model.test_cfg.nms = {"type": "nms", "iou_threshold": 0.6}
    if str(config.model.bbox_head.type).endswith("GFLVotingHead"):
        config.model.bbox_head.type = "GFLHead"
    return config


def pytorch_detections(
    config: Config,
    checkpoint: Path,
    truth: Truth,
    *,
    progress: Callable[[str, int], Callable[[], object]],
    name: str = REFERENCE,
) -> list[Detections]:
    """Detections by mmdet's own test step, one image at a time, in pixels of the original image."""
    import torch
    from mmengine.dataset import pseudo_collate

    from ld_deploy.checkpoint import load_model

    model = load_model(config, checkpoint)
    advance = progress(name, len(truth.indices))
    results = []
    for index in truth.indices:
        with torch.no_grad():
            instances = model.test_step(pseudo_collate([truth.dataset[index]]))[0].pred_instances
        order = instances.scores.argsort(descending=True, stable=True)
        boxes, scores, labels = (instances[key][order].numpy() for key in ("bboxes", "scores", "labels"))
        results.append(Detections(boxes, scores, labels))
        advance()
    return results
