"""A detector's layers as the quantized file has them, changed in place and changed back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.necks import FPN
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ld_deploy.quantization.arithmetic import Kind, fake_quantize, weight_scale
from ld_deploy.quantization.structure import Structure, find_structure
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True)
class LayerScales:
    """What a convolution's input and output are encoded with, as the report of `ld-deploy quantize` names it.

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

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], name: str) -> LayerScales:
        """Of the layer of that name in a state dict."""
        return cls(
            float(state[f"{name}.input_scale"]),
            bool(state[f"{name}.input_unsigned"]),
            float(state[f"{name}.output_scale"]),
            bool(state[f"{name}.output_unsigned"]),
        )


class QuantizedConv2d(nn.Conv2d):
    """A convolution whose input, weight and output hold only values that the deployed file can hold.

    Made from a convolution by `quantize_layers`; the scales are buffers, so a checkpoint has them.
    """

    input_scale: Tensor
    input_unsigned: Tensor
    output_scale: Tensor
    output_unsigned: Tensor
    kind: Kind

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """As the convolution's, (N, I, h, w) -> (N, O, h', w')."""
        weight = fake_quantize(self.weight, weight_scale(self.weight, kind=self.kind), unsigned=False, kind=self.kind)
        output = self._conv_forward(self.quantize_input(input), weight, self.bias)
        return fake_quantize(output, self.output_scale, unsigned=bool(self.output_unsigned), kind=self.kind)

    def quantize_input(self, values: Tensor) -> Tensor:
        """What it reads of some values."""
        return fake_quantize(values, self.input_scale, unsigned=bool(self.input_unsigned), kind=self.kind)


class QuantizedFPN(FPN):
    """An FPN whose upsampled maps are quantized too: in the file a map is quantized once, for all that read it."""

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """As the FPN's."""
        with _QuantizedUpsampling([one.conv for one in self.fpn_convs[: len(self.lateral_convs)]]):
            result: tuple[Tensor, ...] = super().forward(inputs)
        return result


class _QuantizedUpsampling(TorchFunctionMode):
    """`interpolate` reads, from the coarsest level on, what the output convolution of the level reads."""

    def __init__(self, readers: list[nn.Module]) -> None:
        super().__init__()
        self._readers = list(readers)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.interpolate and args:
            reader = self._readers.pop()
            if isinstance(reader, QuantizedConv2d):
                args = (reader.quantize_input(args[0]), *args[1:])
        return func(*args, **(kwargs or {}))


def quantize_layers(model: Any, scales: Mapping[str, LayerScales], *, kind: Kind = "int8") -> None:
    """Makes the named convolutions of a detector quantized ones, and the outputs that others than they read too.

    Args:
        model: an mmdet detector without normalisation that could be folded, see `fold_batch_norm`. Its parameters
            stay the same objects.
        scales: by the names of its convolutions.
        kind: of the encoding.

    Raises:
        ConfigError: A name is of no plain convolution, a scale is not positive, or the neck is another than an FPN.
    """
    neck = getattr(model, "neck", None)
    if type(neck) not in (FPN, type(None)):  # it would train another arithmetic than the file's
        message = f"quantization-aware training knows how an FPN adds its maps up, not a {type(neck).__name__}"
        raise ConfigError(f"{message}: use `ld-deploy quantize` alone, or train with an FPN")
    modules = dict(model.named_modules())
    for name, one in scales.items():
        if not isinstance(modules.get(name), nn.Conv2d):
            raise ConfigError(f"the detector has no convolution {name}: the scales are of another network")
        if not min(one.input_scale, one.output_scale) > 0:
            raise ConfigError(f"the scales of {name} must be positive, got {one}")
    structure = find_structure(model)
    for name, one in scales.items():
        conv = modules[name]
        conv.__class__ = QuantizedConv2d
        conv.kind = kind
        _set_buffers(conv, "input", one.input_scale, unsigned=one.input_unsigned)
        _set_buffers(conv, "output", one.output_scale, unsigned=one.output_unsigned)
    for name, readers in shared_outputs(structure, scales).items():
        module = modules[name]
        module.kind = kind
        first = scales[readers[0]]
        _set_buffers(module, "output", first.input_scale, unsigned=first.input_unsigned)
        module._quantized = module.register_forward_hook(_quantize_output)
    if neck is not None:
        neck.__class__ = QuantizedFPN


def shared_outputs(structure: Structure, scales: Mapping[str, LayerScales]) -> dict[str, list[str]]:
    """Modules whose output quantized convolutions read, and those: what a residual sum reads too, say."""
    found = {}
    for name, readers in structure.readers.items():
        quantized = [one for one in readers if one in scales]
        if quantized and name not in scales:
            found[name] = quantized
    return found


def restore_layers(model: Any) -> dict[str, LayerScales]:
    """Makes the convolutions plain again, with the weights as they are trained.

    Returns:
        The scales that they had; none of a detector that is not quantized.
    """
    scales = {}
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, QuantizedConv2d):
            scales[name] = LayerScales.of_state(state, name)
            module.__class__ = nn.Conv2d  # type: ignore[assignment]  # as it was made
            _drop_buffers(module, "input")
            _drop_buffers(module, "output")
        elif hasattr(module, "_quantized"):
            module._quantized.remove()
            del module._quantized
            _drop_buffers(module, "output")
        elif type(module) is QuantizedFPN:
            module.__class__ = FPN
    return scales


def _quantize_output(module: Any, _inputs: Any, output: Tensor) -> Tensor:
    return fake_quantize(output, module.output_scale, unsigned=bool(module.output_unsigned), kind=module.kind)


def _set_buffers(module: nn.Module, side: str, scale: float, *, unsigned: bool) -> None:
    # As 32-bit numbers on both ways: the file has them so.
    module.register_buffer(f"{side}_scale", torch.tensor(scale, dtype=torch.float32))
    module.register_buffer(f"{side}_unsigned", torch.tensor(unsigned))


def _drop_buffers(module: nn.Module, side: str) -> None:
    del module._buffers[f"{side}_scale"], module._buffers[f"{side}_unsigned"]
