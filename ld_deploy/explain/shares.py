"""How much each part of the loss weighs: its share of the value, and of the gradient that reaches the student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn


def is_part(key: str) -> bool:
    """Whether mmengine adds an entry of this name to the total loss, which it calls `loss`."""
    return "loss" in key and key != "loss"


def short_name(key: str) -> str:
    """`ld_main` for `loss_ld_main`."""
    return key.removeprefix("loss_")


def shares(values: Mapping[str, float]) -> dict[str, float]:
    """Each value over the sum of all; zeros where the sum is zero."""
    total = sum(values.values())
    return {name: value / total if total else 0.0 for name, value in values.items()}


def gradient_norms(
    losses: Mapping[str, Tensor | Sequence[Tensor]], maps: Sequence[Tensor], *, scale: float = 1
) -> dict[str, float]:
    """The L2 norm of each loss's gradient with respect to the maps, all images and levels together.

    The graph stays as it is, for the training's own backward; no parameter's `grad` is touched.

    Args:
        losses: as a detector's `loss` gives them: a tensor, or a list of tensors to sum; of each the mean counts.
        maps: per level (N, C, H, W), from which the losses were computed.
        scale: the losses are multiplied by it first, so that float16 gradients do not vanish; so are the norms.

    Returns:
        By loss; 0 for one that does not depend on the maps.
    """
    norms = {}
    wanted = [each for each in maps if each.requires_grad]
    for name, loss in losses.items():
        parts = [loss] if isinstance(loss, torch.Tensor) else list(loss)
        value = torch.stack([part.mean() for part in parts]).sum() * scale
        found: Sequence[Tensor | None] = ()
        if value.requires_grad and wanted:
            found = torch.autograd.grad(value, wanted, retain_graph=True, allow_unused=True)
        squares = [each.double().square().sum() for each in found if each is not None]
        norms[name] = float(torch.stack(squares).sum().sqrt()) if squares else 0.0
    return norms


class GradientMeter:
    """Takes `gradient_norms` during one training step, on the step's own graph.

    The maps are the neck's outputs: the last that classes, boxes, features and the cross branch all depend on, so that
    their norms can be compared, and all that the backbone gets of them.

    It reads through forward hooks, which are there until `close`. Under DistributedDataParallel each process measures
    the gradient of its own images, before any reduction, and none of the reducer's hooks runs.

    Args:
        model: an mmdet detector, not wrapped.
        scale: of the losses, see `gradient_norms`.
    """

    def __init__(self, model: Any, *, scale: float = 1) -> None:
        self.norms: dict[str, float] = {}
        self._scale = scale
        self._maps: Sequence[Tensor] = ()
        shared: nn.Module = model.neck if model.with_neck else model.backbone
        self._handles = [shared.register_forward_hook(self._keep), model.register_forward_hook(self._measure)]

    def _keep(self, _module: nn.Module, _inputs: Any, output: Sequence[Tensor]) -> None:
        self._maps = output

    def _measure(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        parts = {key: value for key, value in output.items() if is_part(key)}
        self.norms = gradient_norms(parts, self._maps, scale=self._scale)

    def close(self) -> None:
        """Takes the hooks away."""
        self._maps = ()
        for handle in self._handles:
            handle.remove()
