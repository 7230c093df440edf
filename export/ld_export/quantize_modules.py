"""Scales by the modules of the training network: what a calibration, a training and a file tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ld_export.quantize_graph import FLOAT8_OPSET, insert_quantization, with_opset
from ld_export.quantize_plan import find_modules, make_plan
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from ld_export.quantize_graph import Kind
    from ld_export.quantize_plan import Plan


@dataclass(frozen=True)
class ModuleScales:
    """What a quantized module's input and output are encoded with.

    Args:
        input_scale: the value of one step.
        input_unsigned: the input is never negative.
        output_scale: the same of the output, after the ReLU where one follows.
        output_unsigned: the same.
    """

    input_scale: float
    input_unsigned: bool
    output_scale: float
    output_unsigned: bool


def scales_by_module(plan: Plan, scales: dict[str, float]) -> dict[str, ModuleScales]:
    """The scales of a plan's groups, by the modules of the training network."""
    found = {}
    for name in plan.modules:
        read, made = plan.input_group(name), plan.output_group(name)
        found[name] = ModuleScales(scales[read.name], read.unsigned, scales[made.name], made.unsigned)
    return found


def scales_of_modules(plan: Plan, modules: Mapping[str, ModuleScales]) -> dict[str, float]:
    """The way back: the scale of each group of a plan.

    Raises:
        ConfigError: A module's scales are missing, or were made for a network that is wired otherwise.
    """
    found: dict[str, float] = {}
    for name in plan.modules:
        if name not in modules:
            raise ConfigError(f"there are no scales of {name}: quantize the file again with `ld-deploy quantize`")
        one = modules[name]
        read, made = plan.input_group(name), plan.output_group(name)
        if (read.unsigned, made.unsigned) != (one.input_unsigned, one.output_unsigned):
            raise ConfigError(f"the signs of {name} are not those of its scales, which are of another network")
        found.setdefault(made.name, one.output_scale)
    for name in plan.modules:  # what reads a tensor has the last word, as in training
        found[plan.input_group(name).name] = modules[name].input_scale
    return found


def quantize_by_modules(trunk: ModelProto, *, modules: Mapping[str, ModuleScales], kind: Kind) -> ModelProto:
    """The quantized form of a float network whose scales are known, as after a quantization-aware training.

    Raises:
        ConfigError: A module is not in the network, or the scales do not fit it.
    """
    if kind == "fp8":
        trunk = with_opset(trunk, FLOAT8_OPSET)
    known = set(find_modules(trunk.graph))
    if unknown := sorted(set(modules) - known):
        raise ConfigError(f"the network has no convolution {', '.join(unknown)}: the scales are of another one")
    plan = make_plan(trunk.graph, keep_float=known - set(modules))
    return insert_quantization(trunk, plan=plan, scales=scales_of_modules(plan, modules), kind=kind)
