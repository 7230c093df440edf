"""How a detector's layers are wired, found by running it once: who reads whose output."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

# The coarsest of five levels has 2 x 2 locations: GroupNorm cannot normalise a single value.
TRACED_SIDE = 256


@dataclass(frozen=True)
class Structure:
    """Wires between modules, by their names.

    Args:
        readers: of a module that runs once and that no convolution is: the convolutions that read its output.
        normalised: of a convolution: the batch normalisation that reads its output.
    """

    readers: dict[str, list[str]] = field(default_factory=dict)
    normalised: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def find_structure(model: Any) -> Structure:
    """Runs the backbone, neck and head of a detector on an empty image, in eval mode, and looks who hands what to whom.

    Args:
        model: an mmdet detector; nothing of it changes.
    """
    trainings = {name: module.training for name, module in model.named_modules()}
    parts = [part for part in ("backbone", "neck", "bbox_head") if getattr(model, part, None) is not None]
    named = [(name, module) for name, module in model.named_modules() if name.split(".")[0] in parts]
    runs: Counter[str] = Counter()
    # By the identity of a tensor and how often it was changed in place: activations and sums are so.
    made_by: dict[tuple[int, int], list[str]] = defaultdict(list)
    read_by: dict[tuple[int, int], list[str]] = defaultdict(list)
    alive: list[Tensor] = []  # an identity is used again when its tensor is gone
    handles: list[Any] = []

    def watch(name: str) -> tuple[Any, Any]:
        def read(_module: nn.Module, inputs: Any) -> None:
            note(read_by, inputs)

        def made(_module: nn.Module, _inputs: Any, output: Any) -> None:
            runs[name] += 1
            note(made_by, (output,))

        def note(table: dict[tuple[int, int], list[str]], tensors: Any) -> None:
            for tensor in tensors:
                if isinstance(tensor, torch.Tensor):
                    alive.append(tensor)
                    table[id(tensor), tensor._version].append(name)

        return read, made

    try:
        for name, module in named:
            read, made = watch(name)
            handles += [module.register_forward_pre_hook(read), module.register_forward_hook(made)]
        model.eval()
        example = next(model.parameters())
        model.bbox_head(model.extract_feat(example.new_zeros(1, 3, TRACED_SIDE, TRACED_SIDE)))
    finally:
        for handle in handles:
            handle.remove()
        for name, module in model.named_modules():
            module.training = trainings[name]
    modules = dict(named)
    structure = Structure()
    for tensor, makers in made_by.items():
        convs = [name for name in read_by[tensor] if isinstance(modules[name], nn.Conv2d)]
        norms = [name for name in read_by[tensor] if isinstance(modules[name], nn.modules.batchnorm._BatchNorm)]
        maker = makers[0]  # the innermost: containers come after
        if isinstance(modules[maker], nn.Conv2d):
            if norms:
                structure.normalised[maker] = norms[0]
            continue
        once = [name for name in makers if runs[name] == 1]
        if once and convs:
            structure.readers[once[0]] = convs
    return structure
