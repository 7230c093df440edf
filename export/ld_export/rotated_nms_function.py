"""`ld_deploy::RotatedClusterNMS`: the ONNX function, the node that calls it, and a model that is nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from onnx import TensorProto, helper, parser

from ld_export.nms_function import DOMAIN, INPUTS, MAX_IR_VERSION, OPSET, OUTPUTS, VERSION
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
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
    outputs = "num_detections, det_boxes, det_scores, det_labels"
    signature = f"{OP_TYPE} <{', '.join(_ATTRIBUTES)}> (boxes, scores, labels) => ({outputs})"
    return parser.parse_function(f"{header} {signature} {{ {rotated_nms_statements()} }}")


def rotated_nms_node(*, settings: RotatedNmsSettings) -> NodeProto:
    """The node that calls the function on `INPUTS` and gives `OUTPUTS`."""
    return helper.make_node(
        OP_TYPE,
        list(INPUTS),
        list(OUTPUTS),
        name="nms",
        domain=DOMAIN,
        **asdict(settings),
        plugin_namespace=DOMAIN,
        plugin_version=str(VERSION),
    )


def rotated_nms_model(*, settings: RotatedNmsSettings, candidates: int | str = "candidates") -> ModelProto:
    """A model that is the NMS alone: `INPUTS` -> `OUTPUTS`, any batch.

    Args:
        settings: attributes of the node.
        candidates: K, or a name for a dynamic one.
    """
    rows = settings.max_detections
    inputs = [
        helper.make_tensor_value_info(INPUTS[0], TensorProto.FLOAT, ["batch", candidates, 5]),
        helper.make_tensor_value_info(INPUTS[1], TensorProto.FLOAT, ["batch", candidates]),
        helper.make_tensor_value_info(INPUTS[2], TensorProto.INT64, ["batch", candidates]),
    ]
    outputs = [
        helper.make_tensor_value_info("num_detections", TensorProto.INT32, ["batch", 1]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["batch", rows, 5]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", rows]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, ["batch", rows]),
    ]
    return helper.make_model(
        helper.make_graph([rotated_nms_node(settings=settings)], OP_TYPE, inputs, outputs),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=MAX_IR_VERSION,
        functions=[rotated_nms_function()],
    )
