"""`ld_deploy::RotatedClusterNMS`: the ONNX function, the node that calls it, and a model that is nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_export.nms_function import call_nms, only_nms, parse_nms
from ld_export.rotated_nms_text import rotated_nms_statements

if TYPE_CHECKING:
    from onnx import FunctionProto, ModelProto, NodeProto

    from ld_runtime.rotated_nms import RotatedNmsSettings

OP_TYPE = "RotatedClusterNMS"
_ATTRIBUTES = (
    "iou_threshold",
    "vote_threshold",
    "vote_sigma",
    "score_threshold",
    "max_detections",
    "plugin_namespace",
    "plugin_version",
)


def rotated_nms_function() -> FunctionProto:
    """The function `ld_deploy::RotatedClusterNMS`, version 1, for `model.functions`.

    Inputs: boxes float32 (N, K, 5), cx cy w h angle, pixels and radians; scores float32 (N, K); labels int64 (N, K).
    Outputs: num_detections int32 (N, 1), boxes float32 (N, max_detections, 5), scores float32 (N, max_detections),
    labels int64 (N, max_detections); rows past the number of detections hold box 0, score 0, label -1. K is 1 or more.
    """
    return parse_nms(OP_TYPE, _ATTRIBUTES, rotated_nms_statements())


def rotated_nms_node(*, settings: RotatedNmsSettings) -> NodeProto:
    """The node that calls the function on `INPUTS` and gives `OUTPUTS`."""
    return call_nms(OP_TYPE, settings)


def rotated_nms_model(*, settings: RotatedNmsSettings, candidates: int | str = "candidates") -> ModelProto:
    """A model that is the NMS alone: `INPUTS` -> `OUTPUTS`, any batch.

    Args:
        settings: attributes of the node.
        candidates: K, or a name for a dynamic one.
    """
    node, function = rotated_nms_node(settings=settings), rotated_nms_function()
    return only_nms(node, function, settings=settings, candidates=candidates, sides=5)
