"""`ld_deploy::GFLDetect` and `ld_deploy::GFLCandidates`: the ONNX functions, and the tail of a deployed file.

`RotatedGFLDetect` and `RotatedGFLCandidates` are the same of rotated boxes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper, parser

from ld_export.deployed_file import Tail
from ld_export.gfl_text import candidate_statements
from ld_export.nms_function import DOMAIN, MAX_IR_VERSION, OPSET, OUTPUTS, VERSION, nms_function, output_infos
from ld_export.rotated_gfl_text import rotated_candidate_statements
from ld_export.rotated_nms_function import rotated_nms_function
from ld_runtime.model_card import SIDES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx import FunctionProto, ModelProto, NodeProto, ValueInfoProto

    from ld_runtime.model_card import BoxFormat, CandidateRule, ModelCard

_ATTRIBUTES = ("strides", "per_level_top_k", "pre_nms_top_k")


@dataclass(frozen=True)
class Form:
    """What the functions of one kind of boxes are made of.

    Args:
        detect: name of the function from maps to detections.
        candidates: of the one from maps to candidates.
        statements: of the latter, from how many levels there are and whether each has a limit of its own.
        nms: the function from candidates to detections.
    """

    detect: str
    candidates: str
    statements: Callable[..., str]
    nms: Callable[[], FunctionProto]


FORMS: dict[BoxFormat, Form] = {
    "xyxy": Form("GFLDetect", "GFLCandidates", candidate_statements, nms_function),
    "cxcywha": Form("RotatedGFLDetect", "RotatedGFLCandidates", rotated_candidate_statements, rotated_nms_function),
}


def map_names(levels: int) -> tuple[str, ...]:
    """`class_logits_0` ..., then `edge_logits_0` ...: the outputs of the trunk and the inputs of both functions."""
    return tuple(f"{kind}_{level}" for kind in ("class_logits", "edge_logits") for level in range(levels))


def candidate_function(*, levels: int, rule: CandidateRule, box_format: BoxFormat = "xyxy") -> FunctionProto:
    """The function `ld_deploy::GFLCandidates`, version 1, for `model.functions`.

    Inputs, finite: by level, class logits float32 (N, C, h, w); then by level, edge logits float32
    (N, 4 * (reg_max + 1), h, w). Priors are at (x * stride, y * stride). Outputs, K = `pre_nms_top_k`, best first:
    boxes float32 (N, K, 4), x1 y1 x2 y2 in pixels, clipped to the canvas `strides[0] * (h, w)` of the first level;
    scores float32 (N, K); labels int64 (N, K). Where there are fewer pairs than K, the last scores are 0.

    `RotatedGFLCandidates` takes edge logits float32 (N, 5 * (reg_max + 1), h, w) and gives boxes float32 (N, K, 5), cx
    cy w h angle, not clipped: see `ld_runtime.gfl_candidates.rotated_gfl_candidates`.

    Args:
        levels: how many maps of each kind.
        rule: the body is another one where a level has a limit of its own; the numbers are attributes.
        box_format: of the boxes.
    """
    form = FORMS[box_format]
    statements = form.statements(levels=levels, cut_levels=rule.per_level_top_k < rule.pre_nms_top_k)
    header = f'<domain: "{DOMAIN}", opset_import: ["" : {OPSET}]>'
    inputs, attributes = ", ".join(map_names(levels)), ", ".join(_ATTRIBUTES)
    signature = f"{form.candidates} <{attributes}> ({inputs}) => (boxes, scores, labels)"
    return parser.parse_function(f"{header} {signature} {{ {statements} }}")


def detect_function(*, levels: int, rule: CandidateRule, box_format: BoxFormat = "xyxy") -> FunctionProto:
    """The function `ld_deploy::GFLDetect`, version 1: inputs of `GFLCandidates`, outputs of `ClusterDIoUNMS`.

    Or `RotatedGFLDetect`, version 1, of `RotatedGFLCandidates` and `RotatedClusterNMS`.

    It holds the statements of both, not two calls: TensorRT's parser follows a reference to an attribute through one
    call only, and reads 0 or nothing beyond (its `OnnxAttrs.cpp`, and seen in TensorRT-RTX 1.7.1).
    """
    form = FORMS[box_format]
    decode, nms = candidate_function(levels=levels, rule=rule, box_format=box_format), form.nms()
    shared = {*decode.input, *decode.output}  # its outputs are called as the inputs of the NMS are
    for node in decode.node:
        for names in (node.input, node.output):
            names[:] = [name if name in shared else f"decode_{name}" for name in names]
    return helper.make_function(
        DOMAIN,
        form.detect,
        list(decode.input),
        list(nms.output),
        [*decode.node, *nms.node],
        [helper.make_opsetid("", OPSET)],
        [*nms.attribute, *decode.attribute],
    )


def gfl_tail(*, card: ModelCard, strides: Sequence[int], batch: int | str) -> Tail:
    """What makes detections, or candidates where the card has no NMS, of the maps of a trunk.

    Args:
        card: its NMS and candidate rule.
        strides: of the levels, in pixels.
        batch: N, or the name of a dynamic one.
    """
    levels, rule, box_format = len(strides), card.candidates, card.box_format
    form, sides = FORMS[box_format], SIDES[box_format]
    settings = {"strides": list(strides), **asdict(rule)}
    if card.nms_kind == "none":
        function = candidate_function(levels=levels, rule=rule, box_format=box_format)
        node = _node(form.candidates, levels=levels, outputs=OUTPUTS[1:], settings=settings)
        return Tail((node,), (function,), tuple(candidate_infos(batch=batch, rule=rule, sides=sides)))
    function = detect_function(levels=levels, rule=rule, box_format=box_format)
    settings |= {**asdict(card.nms), "plugin_namespace": DOMAIN, "plugin_version": str(VERSION)}
    node = _node(form.detect, levels=levels, outputs=OUTPUTS, settings=settings)
    return Tail((node,), (function,), tuple(output_infos(batch=batch, rows=card.nms.max_detections, sides=sides)))


def tail_model(*, card: ModelCard, strides: Sequence[int], classes: int, bins: int) -> ModelProto:
    """A model that is the tail alone: maps of any batch, height and width -> what the tail gives.

    Args:
        card: as for `gfl_tail`.
        strides: likewise.
        classes: C, number of classes.
        bins: reg_max + 1.
    """
    tail = gfl_tail(card=card, strides=strides, batch="batch")
    channels = [classes] * len(strides) + [SIDES[card.box_format] * bins] * len(strides)
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, f"height_{level}", f"width_{level}"])
        for name, count, level in zip(map_names(len(strides)), channels, [*range(len(strides))] * 2, strict=True)
    ]
    return helper.make_model(
        helper.make_graph(list(tail.nodes), tail.nodes[0].op_type, inputs, list(tail.outputs)),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, VERSION)],
        ir_version=MAX_IR_VERSION,
        functions=list(tail.functions),
    )


def candidate_infos(*, batch: int | str, rule: CandidateRule, sides: int = 4) -> list[ValueInfoProto]:
    """Names, types and shapes of the outputs of a file that ends in candidates, with boxes of `sides` numbers."""
    rows = rule.pre_nms_top_k
    return [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch, rows, sides]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, rows]),
        helper.make_tensor_value_info("labels", TensorProto.INT64, [batch, rows]),
    ]


def _node(op_type: str, *, levels: int, outputs: Sequence[str], settings: dict[str, Any]) -> NodeProto:
    return helper.make_node(op_type, map_names(levels), outputs, name="tail", domain=DOMAIN, **settings)
