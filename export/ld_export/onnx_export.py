"""Checkpoint -> ONNX: traced by torch, slimmed, decode and NMS appended, checked, and only then written."""

from __future__ import annotations

import logging
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import onnxslim
import torch

from ld_export.deployed_file import INPUT, join, write
from ld_export.gfl_function import gfl_tail, map_names
from ld_export.head_maps import HeadMaps
from ld_export.nms_function import MAX_IR_VERSION, OPSET
from ld_export.onnx_check import check_maps, check_tail
from ld_export.quantize_modules import quantize_by_modules
from ld_runtime.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from onnx import ModelProto
    from torch import nn

    from ld_export.quantize_modules import ModuleScales
    from ld_runtime.model_card import ModelCard

# Largest sizes that the dynamic file promises: torch's exporter wants an upper bound.
MAX_BATCH, MAX_SIDE = 1024, 16384


def export_onnx(
    model: Any,
    *,
    card: ModelCard,
    output: Path,
    raw: bool = False,
    quantized: Mapping[str, ModuleScales] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Writes a deployed file, when it agrees with PyTorch on images that were not traced.

    Args:
        model: mmdet single-stage detector with a GFL head, on the CPU. It is put into eval mode.
        card: says what is exported: the canvas, the candidates, the NMS and its settings.
        output: the `.onnx` file.
        raw: export the head's maps alone: `class_logits_0` ..., `edge_logits_0` ... by level. Needs `nms_kind` none.
        quantized: scales of layers that a quantization-aware training had; the card's precision is their encoding.
        progress: gets one line before each step.

    Raises:
        ConfigError: The model cannot be exported.
        EngineError: torch's exporter refuses it.
        ParityError: The file does not agree with PyTorch; nothing is written.
        LdDeployError: The file cannot be written.
    """
    network = HeadMaps(model).eval()
    check_canvas(network, card=card)
    progress("trace the network (torch.onnx)")
    traced = trace(network, card=card, names=map_names(len(network.strides)))
    progress("fold and slim the graph (onnxslim)")
    deployed = trunk = finish(onnxslim.slim(traced))
    progress("compare with PyTorch on images that were not traced")
    check_maps(trunk, network=network, card=card)
    if quantized and card.precision in ("int8", "fp8"):
        progress(f"quantize {len(quantized)} layers to {card.precision}")
        deployed = trunk = quantize_by_modules(trunk, modules=quantized, kind=card.precision)
    if not raw:
        batch = trunk.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        tail = gfl_tail(card=card, strides=network.strides, batch=batch)
        progress(f"append {tail.nodes[0].domain}::{tail.nodes[0].op_type} and compare it with the numpy form")
        deployed = join(trunk, tail)
        check_tail(deployed, card=card, strides=network.strides)
    write(deployed, output, card=card)
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


def finish(model: ModelProto) -> ModelProto:
    """Puts in who made the file, takes out what torch left there, and caps the IR version."""
    model.ir_version = min(model.ir_version, MAX_IR_VERSION)
    model.producer_name = "ld-deploy"
    model.producer_version = version("ld-deploy")
    # Traces of Python source, with paths of the machine.
    for message in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del message.metadata_props[:]
        message.ClearField("doc_string")
    return model
