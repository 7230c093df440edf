"""The cross branch: the student's intermediate head features, finished by the teacher's frozen head.

Source: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", arXiv 2306.11369, section 3.2.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor, nn

from ld_deploy.distill.feature_terms import EPSILON
from ld_deploy.distill.heads import read_maps
from ld_deploy.distill.towers import TOWERS, Recorder
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ld_deploy.distill.batch import HeadOutputs, Recipe

DEFAULT_CONVS = 3  # the published choice for towers of four


class Feed(nn.Module):
    """Stands in a tower: gives the prepared maps one by one, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[Tensor] = []

    def forward(self, _: Tensor) -> Tensor:
        """The next level's map."""
        return self.maps.pop(0)


class CrossBranch(nn.Module):
    """Aligns the student's maps with the teacher's by channel, and runs the rest of the teacher's head on them.

    `default`: mean and deviation are those of each image. `published`: of the batch. A 1x1 convolution stands where the
    widths differ; it is the only part that is trained.

    Args:
        student: its head, with towers `cls_convs` and `reg_convs`.
        teacher: its head, likewise, of any type and width.
        convs: convolutions of the student's towers before the cut; None: 3, or all but the last of shorter towers, as
            published; `all`: the teacher's predictors alone read the student's features, which costs little.
        teacher_convs: the same of the teacher's; None: as many as the student's, or `all` as there.

    Raises:
        ConfigError: A head without such towers, or a cut beyond their end.
    """

    def __init__(
        self, student: Any, teacher: Any, *, convs: int | Literal["all"] | None = None, teacher_convs: int | None = None
    ) -> None:
        super().__init__()
        for role, head in (("student", student), ("teacher", teacher)):
            if not all(len(getattr(head, name, ())) for name in TOWERS):
                raise ConfigError(
                    f"branch='cross' needs towers of convolutions; the {role}'s {type(head).__name__} has none"
                )
        levels = [len(head.prior_generator.strides) for head in (student, teacher)]
        if levels[0] != levels[1]:
            raise ConfigError(f"branch='cross' pairs levels: the student has {levels[0]}, the teacher {levels[1]}")
        lengths = len(student.cls_convs), len(teacher.cls_convs)
        if convs == "all":
            convs, teacher_convs = lengths[0], lengths[1] if teacher_convs is None else teacher_convs
        convs = max(1, min(DEFAULT_CONVS, lengths[0] - 1)) if convs is None else convs
        teacher_convs = min(convs, lengths[1]) if teacher_convs is None else teacher_convs
        for role, cut, length in (("student", convs, lengths[0]), ("teacher", teacher_convs, lengths[1])):
            if not 1 <= cut <= length:
                raise ConfigError(f"cross cuts the {role}'s towers after convolution {cut}; they have {length}")
        self.recorder = Recorder(student, convs=convs)
        self.teacher_convs = teacher_convs
        widths = student.feat_channels, teacher.feat_channels
        self.adapters = nn.ModuleDict(
            {name: nn.Identity() if widths[0] == widths[1] else nn.Conv2d(*widths, kernel_size=1) for name in TOWERS}
        )
        # Outside of this module's parts: the teacher's weights are in no state_dict.
        self._rest = [Rest(teacher, convs=teacher_convs)]

    def forward(
        self, features: Sequence[Tensor], teacher_towers: Mapping[str, Sequence[Tensor]], *, recipe: Recipe
    ) -> HeadOutputs:
        """The cross predictions, in the teacher's layout, of the student's last forward.

        Args:
            features: the student's neck, per level (N, C, H, W): for their number alone.
            teacher_towers: the teacher's maps before the cut.
            recipe: decides over what means and deviations are taken.
        """
        own, wanted = self.recorder.take(), teacher_towers
        axes = (2, 3) if recipe == "default" else (0, 2, 3)
        aligned = {
            name: [
                align(self.adapters[name](each), target, axes=axes)
                for each, target in zip(own[name], wanted[name], strict=True)
            ]
            for name in TOWERS
        }
        return self._rest[0](features, aligned)


class Rest:
    """What follows the cut of a frozen head: it shares the head's weights.

    Args:
        head: stays as it is.
        convs: convolutions before the cut.
    """

    def __init__(self, head: Any, *, convs: int) -> None:
        self._head = copy.copy(head)
        self._head._modules = dict(head._modules)
        self._feeds = {name: Feed() for name in TOWERS}
        for name, feed in self._feeds.items():
            self._head._modules[name] = nn.ModuleList([feed, *getattr(head, name)[convs:]])

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # an EMA copy of the student shares the teacher

    def __call__(self, features: Sequence[Tensor], maps: dict[str, list[Tensor]]) -> HeadOutputs:
        """The head's predictions from its towers' maps at the cut; what alignment made negative is cut off."""
        for name, feed in self._feeds.items():
            feed.maps = [each.relu() for each in maps[name]]
        return read_maps(self._head, self._head(features))


def align(maps: Tensor, target: Tensor, *, axes: tuple[int, ...]) -> Tensor:
    """float32 maps (N, C, H, W) with the mean and the deviation over `axes` that the target has there."""
    maps = maps.float()  # an adapter under autocast gives half precision, whose variances vanish
    wanted_variance, wanted_mean = torch.var_mean(target.detach(), dim=axes, correction=0, keepdim=True)
    variance, mean = torch.var_mean(maps, dim=axes, correction=0, keepdim=True)
    scale = wanted_variance.sqrt() * (variance + EPSILON).rsqrt()
    return torch.addcmul(wanted_mean - mean * scale, maps, scale)
