from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch

from ld_deploy.checkpoint import load_model
from ld_deploy.config import load_config
from ld_deploy.distill.heads import has_distribution, read_maps
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ld_deploy.distill.batch import HeadOutputs

KEYS = {"config", "checkpoint", "precision"}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class FrozenTeacher:
    """A detector in eval mode without gradients, held outside of its student's modules.

    Not an `nn.Module`, so that the student's parameters, `state_dict` and copies do not include it.

    Args:
        module: an mmdet detector.
        checkpoint: of its weights.
        precision: `float32`, `bfloat16` or `float16`: in what its network runs (autocast). Its outputs are float32.
    """

    module: Any  # an mmdet detector, which has no types
    checkpoint: str = ""
    precision: str = "float32"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # an EMA copy of the student shares the teacher

    @classmethod
    def load(cls, teacher: dict[str, str]) -> Self:
        """Builds the teacher.

        Args:
            teacher: dict(config=..., checkpoint=..., precision='float32').

        Raises:
            ConfigError: A key is missing or unknown.
            CheckpointError: The weights do not fit the teacher's config.
        """
        if not {"config", "checkpoint"} <= set(teacher) <= KEYS:
            message = (
                "teacher must be dict(config=..., checkpoint=...), and may have precision='bfloat16'; "
                f"got the keys {sorted(teacher)}"
            )
            raise ConfigError(message)
        precision = teacher.get("precision", "float32")
        if precision not in PRECISIONS:
            raise ConfigError(f"the teacher's precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        module: Any = load_model(load_config(teacher["config"]), teacher["checkpoint"])
        for parameter in module.parameters():
            parameter.requires_grad_(requires_grad=False)
        module = module.to(memory_format=torch.channels_last)
        return cls(module, checkpoint=str(teacher["checkpoint"]), precision=precision)

    def __call__(self, images: Tensor) -> tuple[HeadOutputs, Sequence[Tensor]]:
        """Its predictions for normalised images (N, 3, H, W), and its neck's maps (N, C, H, W) per level."""
        maps, features = self.forward(images)
        # Outside of inference mode, so that the copies which flattening makes may be saved for the student's backward.
        return read_maps(self.module.bbox_head, maps), [level.float().clone() for level in features]

    @torch.inference_mode()
    def forward(self, images: Tensor) -> tuple[Sequence[Sequence[Tensor]], Sequence[Tensor]]:
        """The head's maps and the neck's, as they come."""
        dtype = PRECISIONS[self.precision]
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            features = self.module.extract_feat(images.to(memory_format=torch.channels_last))
            maps = self.module.bbox_head(features)
        return [[level.float() for level in kind] for kind in maps], features


def describe_input(model: Any) -> dict[str, Any]:
    """What images a detector wants."""
    pre = model.data_preprocessor
    return {
        "pixel mean": [round(value, 3) for value in pre.mean.flatten().tolist()],
        "pixel std": [round(value, 3) for value in pre.std.flatten().tolist()],
        "channel order conversion": pre._channel_conversion,
    }


def describe_classes(model: Any) -> dict[str, Any]:
    """What a detector tells apart."""
    return {
        "number of classes": model.bbox_head.num_classes,
        "classifier": "sigmoid" if model.bbox_head.use_sigmoid_cls else "softmax",
    }


def describe_locations(model: Any) -> dict[str, Any]:
    """Where a detector's predictions stand."""
    head = model.bbox_head
    strides = [stride if isinstance(stride, tuple) else (stride, stride) for stride in head.prior_generator.strides]
    return {"strides": strides, "predictions per location": head.num_base_priors}


def describe_distribution(model: Any) -> dict[str, Any]:
    """How a detector's box branch is built."""
    return {"reg_max": getattr(model.bbox_head, "reg_max", None)}


def check_fit(teacher: Any, student: Any, *, terms: Sequence[Any]) -> None:
    """Raises a ConfigError that names the first thing in which the teacher does not fit the student.

    Args:
        teacher: a detector.
        student: a detector.
        terms: what is asked of the teacher depends on them.
    """
    asked = [describe_input, describe_classes]
    if any(term.branch == "own" for term in terms):
        asked.append(describe_locations)
    if any(term.needs_edges and term.branch == "own" for term in terms):
        asked.append(describe_distribution)
    for describe in asked:
        got, wanted = describe(teacher), describe(student)
        for name, value in wanted.items():
            if got[name] != value:
                message = (
                    f"the teacher does not fit the student: its {name} is {got[name]}, the student's {value}; "
                    "train a teacher on the same classes, strides, reg_max and normalisation"
                )
                raise ConfigError(message)
    for term in terms:
        for role, model in (("teacher", teacher), ("student", student))[: 2 if term.branch == "own" else 1]:
            if term.needs_edges and not has_distribution(model.bbox_head):
                message = (
                    f"{term.loss_name} compares edge distributions, and the {role}'s {type(model.bbox_head).__name__} "
                    "has none: use IoULocalizationKD, which compares boxes"
                )
                raise ConfigError(message)
