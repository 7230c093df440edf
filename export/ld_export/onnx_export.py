"""Checkpoint -> ONNX: traced by torch, slimmed, the NMS appended, checked, and only then written."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnx
import onnxslim
import torch
from onnx import ModelProto, helper

from ld_export.candidates import CandidateModel, HeadMaps, RawModel
from ld_export.nms_function import (
    DOMAIN,
    INPUTS,
    MAX_IR_VERSION,
    OP_TYPE,
    OPSET,
    OUTPUTS,
    VERSION,
    nms_function,
    nms_node,
    output_infos,
)
from ld_export.onnx_check import check_detections, check_outputs
from ld_runtime.errors import ConfigError, EngineError
from ld_runtime.files import written_whole
from ld_runtime.model_card import METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from ld_runtime.model_card import ModelCard, NmsSettings

INPUT = "images"
# Largest sizes that the dynamic file promises: torch's exporter wants an upper bound.
MAX_BATCH, MAX_SIDE = 1024, 16384


def export_onnx(
    model: Any,
    *,
    card: ModelCard,
    output: Path,
    raw: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes a deployed file, when it agrees with PyTorch on images that were not traced.

    Args:
        model: mmdet single-stage detector with a GFL head, on the CPU. It is put into eval mode.
        card: says what is exported: the canvas, the candidates, the NMS and its settings.
        output: the `.onnx` file.
        raw: export the head's maps alone: `class_logits_0` ..., `edge_logits_0` ... by level. Needs `nms_kind` none.
        progress: gets one line before each step.

    Raises:
        ConfigError: The model cannot be exported.
        EngineError: torch's exporter refuses it.
        ParityError: The file does not agree with PyTorch; nothing is written.
        LdDeployError: The file cannot be written.
    """
    maps = HeadMaps(model)
    dynamic = card.preprocess.input_hw is None
    network: nn.Module
    names: tuple[str, ...]
    if raw:
        network = RawModel(maps)
        levels = range(len(model.bbox_head.prior_generator.strides))
        names = tuple(f"{kind}_{level}" for kind in ("class_logits", "edge_logits") for level in levels)
    else:
        network = CandidateModel(maps, rule=card.candidates, dynamic=dynamic)
        names = OUTPUTS[1:] if card.nms_kind == "none" else INPUTS
    network.eval()

    check_canvas(network, card=card)
    progress("trace the network (torch.onnx)")
    traced = trace(network, card=card, names=names)
    progress("fold and slim the graph (onnxslim)")
    slim = finish(onnxslim.slim(traced), card=card)
    progress("compare with PyTorch on images that were not traced")
    outputs = check_outputs(slim, network=network, card=card, raw=raw)
    if card.nms_kind == "cluster_diou":
        progress(f"append {DOMAIN}::{OP_TYPE} and compare it with the numpy form")
        slim = append_nms(slim, settings=card.nms)
        check_detections(slim, candidates=outputs, settings=card.nms)
    onnx.checker.check_model(slim, full_check=True)
    with written_whole(output) as temporary:
        onnx.save(slim, str(temporary))
    progress(f"wrote {output} ({output.stat().st_size / 2**20:.1f} MiB)")


def check_canvas(network: nn.Module, *, card: ModelCard) -> None:
    """Raises a ConfigError where PyTorch itself cannot run one image of a fixed canvas.

    GroupNorm does so where a group has a single value: 32 groups of a 32-wide head on a level of 1 x 1.
    """
    if card.preprocess.input_hw is None:
        return
    height, width = card.preprocess.input_hw
    try:
        with torch.no_grad():
            network(torch.zeros((1, height, width, 3), dtype=torch.uint8))
    except ValueError as error:
        message = f"PyTorch cannot run this network on one image of {height} x {width} ({error})"
        raise ConfigError(f"{message}: choose a larger --input-hw, or train a wider head") from error


def trace(network: nn.Module, *, card: ModelCard, names: tuple[str, ...]) -> ModelProto:
    """The network as ONNX, opset 18, with a dynamic batch, and dynamic sides where the card has no fixed canvas.

    Raises:
        EngineError: torch's exporter refuses the network.
    """
    divisor = card.preprocess.size_divisor
    dims: dict[int, object] = {0: torch.export.Dim("batch", min=1, max=MAX_BATCH)}
    height, width = card.preprocess.input_hw or (-(-256 // divisor) * divisor, -(-320 // divisor) * divisor)
    if card.preprocess.input_hw is None:
        for axis, name in ((1, "height"), (2, "width")):
            side = torch.export.Dim(f"{name}_over_{divisor}", min=1, max=MAX_SIDE // divisor)
            dims[axis] = divisor * side
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # its hints are for those who write exporters
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecations
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(names),
                dynamic_shapes={INPUT: dims},
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        first = str(error).splitlines()[0]
        message = f"torch {torch.__version__} cannot export this network: {first}"
        raise EngineError(
            f"{message}; a layer of the backbone or neck may need another torch or another form"
        ) from error
    finally:
        log.setLevel(level)
    assert program is not None
    return program.model_proto


def finish(model: ModelProto, *, card: ModelCard) -> ModelProto:
    """Puts in the model card and who made the file, and caps the IR version."""
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    model.producer_name = "ld-deploy"
    model.producer_version = version("ld-deploy")
    # What torch left there are traces of Python source, with paths of the machine.
    for message in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del message.metadata_props[:]
        message.ClearField("doc_string")
    helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    return model


def append_nms(model: ModelProto, *, settings: NmsSettings) -> ModelProto:
    """A copy whose candidates go through one `ld_deploy::ClusterDIoUNMS` node, its function included."""
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    del graph.output[:]
    graph.node.append(nms_node(settings=settings))
    graph.output.extend(output_infos(batch=batch, settings=settings))
    result.functions.append(nms_function())
    result.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    return result
