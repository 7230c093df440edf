from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from ld_deploy.checkpoint import load_model
from ld_deploy.config import load_config
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class FrozenTeacher:
    """A detector in eval mode without gradients, held outside of its student's modules.

    Not an `nn.Module`, so that the student's parameters, `state_dict` and copies do not include it.
    """

    module: Any  # an mmdet detector, which has no types

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # an EMA copy of the student shares the teacher

    @classmethod
    def load(cls, teacher: dict[str, str], *, student: nn.Module) -> Self:
        """Builds the teacher and checks that it fits.

        Args:
            teacher: dict(config=..., checkpoint=...).
            student: the detector that learns from it.

        Raises:
            ConfigError: A key is missing, or classes, strides, bins or normalisation differ.
            CheckpointError: The weights do not fit the teacher's config.
        """
        if set(teacher) != {"config", "checkpoint"}:
            raise ConfigError(f"teacher must be dict(config=..., checkpoint=...), got the keys {sorted(teacher)}")
        module: Any = load_model(load_config(teacher["config"]), teacher["checkpoint"])
        for parameter in module.parameters():
            parameter.requires_grad_(requires_grad=False)
        check_fit(module, student)
        return cls(module)

    @torch.no_grad()
    def maps(self, images: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Class and edge maps per level of normalised images (N, 3, H, W)."""
        features = self.module.extract_feat(images)
        class_maps, edge_maps, *_ = self.module.bbox_head(features)
        return class_maps, edge_maps


def check_fit(teacher: nn.Module, student: nn.Module) -> None:
    """Raises a ConfigError that names the first thing in which the teacher does not fit the student."""

    def describe(model: Any) -> dict[str, Any]:
        head, pre = model.bbox_head, model.data_preprocessor
        return {
            "number of classes": head.num_classes,
            "strides": [tuple(stride) for stride in head.prior_generator.strides],
            "reg_max": getattr(head, "reg_max", None),
            "pixel mean": [round(value, 3) for value in pre.mean.flatten().tolist()],
            "pixel std": [round(value, 3) for value in pre.std.flatten().tolist()],
            "channel order conversion": pre._channel_conversion,
        }

    wanted, got = describe(student), describe(teacher)
    for name, value in wanted.items():
        if got[name] != value:
            message = (
                f"the teacher does not fit the student: its {name} is {got[name]}, the student's {value}; "
                "train a teacher on the same classes, strides, reg_max and normalisation"
            )
            raise ConfigError(message)
