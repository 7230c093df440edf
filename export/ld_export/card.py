"""The model card of an export, read from a training config, and every reason why a config cannot be deployed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ld_runtime.errors import ConfigError
from ld_runtime.model_card import NMS_OF, SIDES, CandidateRule, ModelCard, NmsSettings, Preprocess
from ld_runtime.rotated_nms import RotatedNmsSettings

if TYPE_CHECKING:
    from mmengine.config import Config

    from ld_runtime.model_card import BoxFormat, NmsKind

NMS_TYPES: dict[BoxFormat, str] = {"xyxy": "cluster_diou_nms", "cxcywha": "rotated_cluster_nms"}
VOTING_TEST_CFG: dict[BoxFormat, str] = {
    "xyxy": "model.test_cfg.nms = dict(type='cluster_diou_nms', iou_threshold=0.6, "
    "distance_exponent=0.8, vote_threshold=0.7, vote_sigma=0.025) with model.bbox_head.type = 'GFLVotingHead', or "
    "inherit configs/_base_/gfl.py",
    "cxcywha": "model.test_cfg.nms = dict(type='rotated_cluster_nms', iou_threshold=0.1, vote_threshold=0.7, "
    "vote_sigma=0.025), or inherit configs/_base_/rotated_gfl.py",
}
# What a test pipeline may hold besides the one resize. They do nothing to the pixels.
NEUTRAL_TRANSFORMS = frozenset({"LoadImageFromFile", "LoadAnnotations", "PackDetInputs"})


def card_from_config(
    config: Config,
    *,
    weights_sha256: str,
    input_hw: tuple[int, int] | None = None,
    score_threshold: float | None = None,
    max_detections: int | None = None,
    nms_kind: NmsKind | None = None,
    tool_versions: dict[str, str] | None = None,
) -> ModelCard:
    """Reads what the deployed file will say about itself.

    Args:
        config: of the student, without teacher.
        weights_sha256: of the checkpoint file.
        input_hw: height and width in pixels of a fixed canvas. A config that keeps the aspect ratio is then deployed
            with the letterbox rule, one that stretches is stretched to it. None leaves what the config does.
        score_threshold: instead of the config's.
        max_detections: instead of the config's.
        nms_kind: `none` exports candidates; the config's NMS is then not looked at. None: that of the head's boxes.
        tool_versions: recorded as they are.

    Raises:
        ConfigError: Something in the config cannot be deployed; the message has the way out.
    """
    class_names = _class_names(config)
    num_classes = config.model.bbox_head.get("num_classes")
    if num_classes != len(class_names):
        message = (
            f"the head has {num_classes} classes, the test data set names {len(class_names)}: set "
            "model.bbox_head.num_classes and test_dataloader.dataset.metainfo.classes to the same number"
        )
        raise ConfigError(message)
    test_cfg = config.model.get("test_cfg") or {}
    box_format = _box_format(config)
    nms_kind = nms_kind or NMS_OF[box_format]
    if nms_kind not in ("none", NMS_OF[box_format]):
        message = f"the NMS of {config.model.bbox_head.type} is {NMS_OF[box_format]}, {nms_kind} was asked for"
        raise ConfigError(f"{message}: leave --nms out")
    return ModelCard(
        preprocess=_preprocess(config, input_hw=input_hw),
        class_names=class_names,
        nms=_nms(
            test_cfg,
            box_format=box_format,
            score_threshold=score_threshold,
            max_detections=max_detections,
            with_nms=nms_kind != "none",
        ),
        candidates=_candidates(test_cfg),
        nms_kind=nms_kind,
        box_format=box_format,
        weights_sha256=weights_sha256,
        training_config=Path(config.filename).name if config.filename else "",
        tool_versions=tool_versions or {},
    )


def dataset_config(config: Config, *, split: Literal["test", "val", "train"] = "test") -> dict[str, Any]:
    """The data set's own config, without wrappers such as `RepeatDataset`.

    Raises:
        ConfigError: The config has no such data set.
    """
    dataset = (config.get(f"{split}_dataloader") or {}).get("dataset")
    while isinstance(dataset, dict) and "dataset" in dataset:
        dataset = dataset["dataset"]
    if not isinstance(dataset, dict):
        raise ConfigError(f"the config has no {split}_dataloader.dataset: its classes and its resize rule are there")
    return dataset


def _box_format(config: Config) -> BoxFormat:
    """Of the head: one with five distributions a location has rotated boxes."""
    from mmdet.registry import MODELS

    import ld_deploy.models  # noqa: F401 - registers the heads

    head = MODELS.get(config.model.bbox_head.get("type", ""))
    return "cxcywha" if getattr(head, "distributions", SIDES["xyxy"]) == SIDES["cxcywha"] else "xyxy"


def _class_names(config: Config) -> tuple[str, ...]:
    from mmdet.registry import DATASETS

    dataset = dataset_config(config)
    meta = dataset.get("metainfo") or {}
    if "classes" not in meta:
        kind = DATASETS.get(dataset["type"])
        meta = getattr(kind, "METAINFO", {})
    classes = meta.get("classes", ())
    if not classes:
        message = f"the data set {dataset['type']} names no classes"
        raise ConfigError(f"{message}: set test_dataloader.dataset.metainfo = dict(classes=('name', ...))")
    return (classes,) if isinstance(classes, str) else tuple(classes)


def _preprocess(config: Config, *, input_hw: tuple[int, int] | None) -> Preprocess:
    settings = config.model.get("data_preprocessor") or {}
    kind = str(settings.get("type", "none")).split(".")[-1]
    if kind != "PadMeanPreprocessor":
        message = (
            f"model.data_preprocessor is {kind}, which pads after the normalisation; a deployed file pads uint8 "
            "pixels. Set model.data_preprocessor.type = 'PadMeanPreprocessor', or inherit configs/_base_/gfl.py"
        )
        raise ConfigError(message)
    mean, std = settings.get("mean"), settings.get("std")
    if mean is None or std is None or len(mean) != 3 or len(std) != 3:
        message = f"model.data_preprocessor needs mean and std of three channels, got mean={mean}, std={std}"
        raise ConfigError(f"{message}: set both, for example those of mmdet's GFL configs")
    reverses = bool(settings.get("bgr_to_rgb") or settings.get("rgb_to_bgr"))
    bgr = tuple(reversed(mean)) if reverses else tuple(mean)
    divisor = int(settings.get("pad_size_divisor", 1))
    resize, scale, canvas = _resize_rule(dataset_config(config).get("pipeline") or config.get("test_pipeline") or [])
    if canvas is None and settings.get("input_hw"):
        canvas = tuple(settings["input_hw"])
    if input_hw is not None:
        canvas = input_hw
        if resize == "keep_ratio":
            resize, scale = "letterbox", None
    if canvas is not None and any(side <= 0 or side % divisor for side in canvas):
        nearest = tuple(max(divisor, round(side / divisor) * divisor) for side in canvas)
        message = f"the input height and width must be positive multiples of {divisor}, got {canvas[0]} {canvas[1]}"
        raise ConfigError(f"{message}: the nearest are --input-hw {nearest[0]} {nearest[1]}")
    return Preprocess(
        resize=resize,
        scale=scale,
        input_hw=canvas,
        size_divisor=divisor,
        # Rounded in float32, as the preprocessor does it.
        pad_value=tuple(int(value) for value in _round_float32(bgr)),  # type: ignore[arg-type]
        mean=tuple(float(value) for value in (mean if reverses else reversed(mean))),  # type: ignore[arg-type]
        std=tuple(float(value) for value in (std if reverses else reversed(std))),  # type: ignore[arg-type]
        channel_order="rgb" if reverses else "bgr",
    )


def _round_float32(values: tuple[float, ...]) -> list[float]:
    import numpy as np

    return [float(value) for value in np.round(np.asarray(values, dtype=np.float32))]


def _resize_rule(
    pipeline: list[dict[str, Any]],
) -> tuple[Literal["keep_ratio", "letterbox", "stretch"], tuple[int, int] | None, tuple[int, int] | None]:
    """Rule, scale and canvas of a test pipeline."""
    names = [str(step["type"]).split(".")[-1] for step in pipeline]
    resizes = [step for step, name in zip(pipeline, names, strict=True) if name not in NEUTRAL_TRANSFORMS]
    if len(resizes) != 1 or str(resizes[0]["type"]).split(".")[-1] not in ("Resize", "Letterbox"):
        message = (
            "the test pipeline must hold one Resize or Letterbox, and nothing else that changes pixels; "
            f"it is {', '.join(names) or 'empty'}"
        )
        raise ConfigError(f"{message}: deploy with a config whose test_dataloader.dataset.pipeline is so")
    step = resizes[0]
    if str(step["type"]).split(".")[-1] == "Letterbox":
        return "letterbox", None, tuple(step["input_hw"])
    unknown = {key: value for key, value in step.items() if key not in ("type", "scale", "keep_ratio")}
    bilinear = {"interpolation": "bilinear", "backend": "cv2"}
    odd = {key: value for key, value in unknown.items() if bilinear.get(key) != value}
    scale = step.get("scale")
    if odd or not isinstance(scale, list | tuple) or len(scale) != 2:
        message = f"the test pipeline's Resize needs scale=(two edges) and cv2's bilinear, got {dict(step)}"
        raise ConfigError(f"{message}: write dict(type='Resize', scale=(1333, 800), keep_ratio=True)")
    if step.get("keep_ratio", False):
        return "keep_ratio", (int(scale[0]), int(scale[1])), None
    return "stretch", None, (int(scale[1]), int(scale[0]))  # mmdet's scale is width, height


def _nms(
    test_cfg: dict[str, Any],
    *,
    box_format: BoxFormat,
    score_threshold: float | None,
    max_detections: int | None,
    with_nms: bool,
) -> NmsSettings | RotatedNmsSettings:
    nms, wanted = dict(test_cfg.get("nms") or {}), NMS_TYPES[box_format]
    kind = nms.pop("type", None)
    if not with_nms:
        nms = {}
    elif kind != wanted:
        message = f"model.test_cfg.nms.type is {kind!r}, a deployed file has {wanted!r}"
        raise ConfigError(f"{message}: set {VOTING_TEST_CFG[box_format]}")
    form = RotatedNmsSettings if box_format == "cxcywha" else NmsSettings
    allowed = {field.name for field in fields(form)} - {"score_threshold", "max_detections"}
    if unknown := set(nms) - allowed:
        message = f"model.test_cfg.nms has keys that {wanted} does not know: {', '.join(sorted(unknown))}"
        raise ConfigError(f"{message}; it knows {', '.join(sorted(allowed))}")
    settings = form(
        **nms,
        score_threshold=float(test_cfg.get("score_thr", 0.05) if score_threshold is None else score_threshold),
        max_detections=int(test_cfg.get("max_per_img", 100) if max_detections is None else max_detections),
    )
    if not 0 <= settings.score_threshold < 1:
        raise ConfigError(f"the score threshold must be from 0 to below 1, got {settings.score_threshold}")
    if settings.max_detections < 1:
        raise ConfigError(f"max_detections must be 1 or more, got {settings.max_detections}")
    return settings


def _candidates(test_cfg: dict[str, Any]) -> CandidateRule:
    if test_cfg.get("min_bbox_size", 0) > 0:
        message = f"model.test_cfg.min_bbox_size is {test_cfg['min_bbox_size']}; a deployed file drops empty boxes only"
        raise ConfigError(f"{message}: set it to 0")
    per_level, over_all = int(test_cfg.get("nms_pre", -1)), int(test_cfg.get("pre_nms_top_k", 1000))
    if per_level < 1 or over_all < 1:
        message = f"model.test_cfg.nms_pre and pre_nms_top_k must be 1 or more, got {per_level} and {over_all}"
        raise ConfigError(f"{message}: set nms_pre=1000, pre_nms_top_k=1000")
    return CandidateRule(per_level_top_k=per_level, pre_nms_top_k=over_all)
