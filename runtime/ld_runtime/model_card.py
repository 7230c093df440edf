"""What a deployed file says about itself: everything the runtime needs, and where the file came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ld_runtime.errors import ConfigError, ModelCardError
from ld_runtime.rotated_nms import RotatedNmsSettings

METADATA_KEY = "ld_deploy.model_card"
SCHEMA_VERSION = 1

ResizeRule = Literal["keep_ratio", "letterbox", "stretch"]
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
NmsKind = Literal["cluster_diou", "rotated_cluster", "none"]
# How a file writes its boxes: x1 y1 x2 y2, or cx cy w h angle (rotated ones).
BoxFormat = Literal["xyxy", "cxcywha"]
SIDES: dict[BoxFormat, int] = {"xyxy": 4, "cxcywha": 5}  # how many numbers that are
NMS_OF: dict[BoxFormat, NmsKind] = {"xyxy": "cluster_diou", "cxcywha": "rotated_cluster"}


@dataclass(frozen=True)
class NmsSettings:
    """Attributes of `ld_deploy::ClusterDIoUNMS` as they stand in the file."""

    iou_threshold: float = 0.6
    distance_exponent: float = 0.8
    vote_threshold: float = 0.7
    vote_sigma: float = 0.025
    score_threshold: float = 0.05
    max_detections: int = 100


@dataclass(frozen=True)
class CandidateRule:
    """What reaches the NMS: mmdet 3.3's rule, then the best over all levels.

    Per level the best `per_level_top_k` (prior, class) pairs above the score threshold; of those the best
    `pre_nms_top_k` over all levels.
    """

    per_level_top_k: int = 1000
    pre_nms_top_k: int = 1000


@dataclass(frozen=True)
class Preprocess:
    """From a decoded BGR uint8 image to the model's canvas. Everything after it (cast, channel order, normalisation)
    is inside the model file; `mean`, `std` and `channel_order` are here for the reader.

    Args:
        resize: `keep_ratio`: the largest size whose long edge is at most max(scale) and short edge at most min(scale)
            (mmdet's `Resize(scale, keep_ratio=True)`), padded at the bottom and right to a multiple of
            `size_divisor`. `letterbox`: the largest size that fits into `input_hw`, padded at the bottom and right to
            it. `stretch`: exactly `input_hw`.
        scale: two edge lengths in pixels, for `keep_ratio`.
        input_hw: height and width of the canvas in pixels, or None where it depends on the image.
        size_divisor: both sides of the canvas are multiples of it.
        pad_value: uint8 value of the padding in B, G, R order: the rounded mean.
        mean: in RGB order, as in the training config.
        std: in RGB order.
        channel_order: what the network was trained with: the graph converts from BGR.
    """  # noqa: D205

    resize: ResizeRule
    scale: tuple[int, int] | None
    input_hw: tuple[int, int] | None
    size_divisor: int
    pad_value: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    channel_order: Literal["rgb", "bgr"] = "rgb"

    def __post_init__(self) -> None:
        if self.resize not in ("keep_ratio", "letterbox", "stretch"):
            raise ModelCardError(f"resize must be keep_ratio, letterbox or stretch, got {self.resize!r}")
        if self.resize == "keep_ratio" and self.scale is None:
            raise ModelCardError("resize keep_ratio needs scale: two edge lengths in pixels")
        if self.resize != "keep_ratio" and self.input_hw is None:
            raise ModelCardError(f"resize {self.resize} needs input_hw: the height and width of the canvas")
        if self.input_hw and any(side % self.size_divisor for side in self.input_hw):
            message = f"input_hw {self.input_hw} is no multiple of the size divisor {self.size_divisor}"
            raise ModelCardError(message)


@dataclass(frozen=True)
class ModelCard:
    """The model card: travels in the ONNX file's `metadata_props` and in a JSON beside an engine.

    `precision` is that of the network; what follows it is float32 always. `nms_kind` is that of the `box_format`, or
    none. A card that does not say its `box_format`, as those of older versions, is of upright boxes.

    Raises:
        ModelCardError: The NMS is of the other kind of boxes.
    """

    preprocess: Preprocess
    class_names: tuple[str, ...]
    nms: NmsSettings | RotatedNmsSettings = field(default_factory=NmsSettings)
    candidates: CandidateRule = field(default_factory=CandidateRule)
    nms_kind: NmsKind = "cluster_diou"
    box_format: BoxFormat = "xyxy"
    precision: Precision = "fp32"
    weights_sha256: str = ""
    training_config: str = ""
    tool_versions: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.box_format not in SIDES:
            raise ModelCardError(f"box_format must be one of {', '.join(SIDES)}, got {self.box_format!r}")
        own = RotatedNmsSettings if self.box_format == "cxcywha" else NmsSettings
        if self.nms_kind not in ("none", NMS_OF[self.box_format]) or not isinstance(self.nms, own):
            message = f"the NMS of {self.box_format} boxes is {NMS_OF[self.box_format]} with {own.__name__}"
            raise ModelCardError(f"{message}, got {self.nms_kind} with {type(self.nms).__name__}")

    @property
    def is_rotated(self) -> bool:
        """Whether boxes are cx cy w h angle."""
        return self.box_format == "cxcywha"

    def to_json(self) -> str:
        """One JSON object, keys sorted. That of upright boxes is what older versions read too."""
        content = asdict(self)
        if not self.is_rotated:
            del content["box_format"]
        return json.dumps(content, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Reads what `to_json` wrote.

        Raises:
            ModelCardError: Not JSON, a key is missing or unknown, or the schema is another version's.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            version = data.get("schema_version")
            if version != SCHEMA_VERSION:
                message = (
                    f"the model card has schema version {version!r}, this ld-deploy reads {SCHEMA_VERSION}: "
                    "export the model again with `ld-deploy export`, or install the ld-deploy that wrote it"
                )
                raise ModelCardError(message)
            preprocess: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in data.pop("preprocess").items()
            }
            settings = RotatedNmsSettings if data.get("box_format") == "cxcywha" else NmsSettings
            return cls(
                preprocess=Preprocess(**preprocess),
                nms=settings(**data.pop("nms")),
                candidates=CandidateRule(**data.pop("candidates")),
                class_names=tuple(data.pop("class_names")),
                **data,
            )
        except (ValueError, TypeError, KeyError, AttributeError, ConfigError) as error:
            message = f"the model card cannot be read ({error}): export the model again with `ld-deploy export`"
            raise ModelCardError(message) from error
