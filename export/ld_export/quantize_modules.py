"""Scales by the modules of the training network: what a calibration, a training and a file tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
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


def scales_of_modules(plan: Plan, modules: dict[str, ModuleScales]) -> dict[str, float]:
    """The way back: the scale of each group of a plan.

    Raises:
        ConfigError: A module's scales are missing, or a tensor is of none.
    """
    found: dict[str, float] = {}
    for name in plan.modules:
        if name not in modules:
            raise ConfigError(f"there are no scales of {name}: quantize the file again with `ld-deploy quantize`")
        found[plan.output_group(name).name] = modules[name].output_scale
    for name in plan.modules:  # what reads a tensor has the last word, as in training
        found[plan.input_group(name).name] = modules[name].input_scale
    if missing := sorted(set(plan.groups) - set(found)):
        raise ConfigError(f"the sums {', '.join(missing)} are read by no quantized convolution: they have no scale")
    return found
