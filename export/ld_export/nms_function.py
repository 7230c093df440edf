"""`ld_deploy::ClusterDIoUNMS`: the ONNX function, the node that calls it, and a model that is nothing else."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from onnx import TensorProto, helper, parser

from ld_export.nms_text import nms_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import FunctionProto, ModelProto, NodeProto, ValueInfoProto

    from ld_runtime.model_card import NmsSettings
    from ld_runtime.rotated_nms import RotatedNmsSettings

DOMAIN = "ld_deploy"
OP_TYPE = "ClusterDIoUNMS"
VERSION = 1
OPSET = 18
INPUTS = ("candidate_boxes", "candidate_scores", "candidate_labels")
OUTPUTS = ("num_detections", "boxes", "scores", "labels")
MAX_IR_VERSION = 10  # ONNX Runtime before 1.23 reads no later one

_ATTRIBUTES = (
    "iou_threshold",
    "distance_exponent",
    "vote_threshold",
    "vote_sigma",
    "score_threshold",
    "max_detections",
    "plugin_namespace",
    "plugin_version",
)


def nms_function() -> FunctionProto:
    """The function `ld_deploy::ClusterDIoUNMS`, version 1, for `model.functions`.

    Inputs: boxes float32 (N, K, 4), x1 y1 x2 y2 in pixels; scores float32 (N, K); labels int64 (N, K). Outputs:
    num_detections int32 (N, 1), boxes float32 (N, max_detections, 4), scores float32 (N, max_detections), labels int64
    (N, max_detections); rows past the number of detections hold box 0, score 0, label -1. K is 1 or more.
    """
    return parse_nms(OP_TYPE, _ATTRIBUTES, nms_statements())


def nms_node(*, settings: NmsSettings) -> NodeProto:
    """The node that calls the function on `INPUTS` and gives `OUTPUTS`."""
    return call_nms(OP_TYPE, settings)


def output_infos(*, batch: int | str, rows: int, sides: int = 4) -> list[ValueInfoProto]:
    """Names, types and shapes of `OUTPUTS`, with boxes of `sides` numbers."""
    return [
        helper.make_tensor_value_info("num_detections", TensorProto.INT32, [batch, 1]),
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, rows, sides]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, rows]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, rows]),
    ]


def nms_model(*, settings: NmsSettings, candidates: int | str = "candidates") -> ModelProto:
    """A model that is the NMS alone: `INPUTS` -> `OUTPUTS`, any batch.

    Args:
        settings: attributes of the node.
        candidates: K, or a name for a dynamic one.
    """
    return only_nms(nms_node(settings=settings), nms_function(), settings=settings, candidates=candidates, sides=4)


# What this function and the one of rotated boxes share.


def parse_nms(op_type: str, attributes: Sequence[str], statements: str) -> FunctionProto:
    """A function from candidates to detections, of our domain."""
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
    outputs = "num_detections, det_boxes, det_scores, det_labels"
    signature = f"{op_type} <{', '.join(attributes)}> (boxes, scores, labels) => ({outputs})"
    return parser.parse_function(f"{header} {signature} {{ {statements} }}")


def call_nms(op_type: str, settings: NmsSettings | RotatedNmsSettings) -> NodeProto:
    """A node that calls such a function on `INPUTS` and gives `OUTPUTS`."""
    return helper.make_node(
        op_type,
        list(INPUTS),
        list(OUTPUTS),
        name="nms",
        domain=DOMAIN,
        **asdict(settings),
        plugin_namespace=DOMAIN,
        plugin_version=str(VERSION),
    )


def only_nms(
    node: NodeProto,
    function: FunctionProto,
    *,
    settings: NmsSettings | RotatedNmsSettings,
    candidates: int | str,
    sides: int,
) -> ModelProto:
    """A model that is one such node: any batch, boxes of `sides` numbers."""
    inputs = [
        helper.make_tensor_value_info(INPUTS[0], TensorProto.FLOAT, ["batch", candidates, sides]),
        helper.make_tensor_value_info(INPUTS[1], TensorProto.FLOAT, ["batch", candidates]),
        helper.make_tensor_value_info(INPUTS[2], TensorProto.INT64, ["batch", candidates]),
    ]
    outputs = output_infos(batch="batch", rows=settings.max_detections, sides=sides)
    return helper.make_model(
        helper.make_graph([node], node.op_type, inputs, outputs),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=MAX_IR_VERSION,
        functions=[function],
    )
