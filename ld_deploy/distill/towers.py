"""The towers of a dense head, and what they compute on the way."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

TOWERS = ("cls_convs", "reg_convs")


class Recorder:
    """Keeps what a tower gives after one of its convolutions, its norm and its activation, level by level.

    The CrossKD paper takes maps before the activation; with mmcv's activations, which work in place, its published code
    gets them after it, as here.

    Args:
        head: of an mmdet detector.
        convs: the convolution, counted from 1.
    """

    def __init__(self, head: Any, *, convs: int) -> None:
        self.convs = convs
        levels = len(head.prior_generator.strides)
        # Validation runs the head too: only the last run is kept.
        self.maps: dict[str, deque[Tensor]] = {name: deque(maxlen=levels) for name in TOWERS}
        for name in TOWERS:
            getattr(head, name)[convs - 1].register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self.maps[name].append(output)

        return keep

    def take(self) -> dict[str, list[Tensor]]:
        """Per tower the float32 maps of the last run, by level; they are forgotten here."""
        taken = {name: [each.float() for each in maps] for name, maps in self.maps.items()}
        for maps in self.maps.values():
            maps.clear()
        return taken
