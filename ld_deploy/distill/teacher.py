from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch

from ld_deploy.checkpoint import load_model
from ld_deploy.config import load_config
from ld_deploy.distill.cache import TeacherCache
from ld_deploy.distill.heads import has_distribution, read_maps
from ld_deploy.distill.towers import TOWERS, Recorder
from ld_runtime.bench_report import sha256_of
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from ld_deploy.distill.batch import HeadOutputs

REQUIRED, OPTIONAL = {"config", "checkpoint"}, {"precision", "cache"}
# No float16: gradients of the cross branch would vanish in it without a loss scaler.
PRECISIONS = {"training": None, "float32": None, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, eq=False)
class TeacherOutputs:
    """What a teacher says of a batch, without gradients, float32.

    Args:
        head: its predictions.
        features: its neck, per level (N, C, H, W); empty unless asked for.
        towers: per tower its maps before the cut of the cross branch, by level; empty unless asked for.
    """

    head: HeadOutputs
    features: Sequence[Tensor] = ()
    towers: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)


@dataclass(eq=False)
class FrozenTeacher:
    """A detector in eval mode without gradients, held outside of its student's modules.

    Not an `nn.Module`, so that the student's parameters, `state_dict` and copies do not include it.

    Args:
        module: an mmdet detector.
        weights_name: identifies its weights and its config.
        precision: in what its network runs: `bfloat16` (autocast), `float32`, or `training`: as the student trains, so
            with --amp in half precision too. Its outputs are float32. The cross branch, which is the rest of its head,
            runs in the same.
        cache_folder: of its outputs on disk, see `TeacherCache`.
        with_features: give the neck's maps.
        recorder: of its towers, for the cross branch.
    """

    module: Any  # an mmdet detector, which has no types
    weights_name: str = ""
    precision: str = "training"
    cache_folder: str | None = None
    with_features: bool = False
    recorder: Recorder | None = None
    _cache: TeacherCache | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # an EMA copy of the student shares the teacher

    @classmethod
    def load(cls, teacher: dict[str, str]) -> Self:
        """Builds the teacher.

        Args:
            teacher: dict(config=..., checkpoint=..., precision='training', cache=None).

        Raises:
            ConfigError: A key is missing or unknown.
            CheckpointError: The weights do not fit the teacher's config.
        """
        if not set(teacher) >= REQUIRED or not set(teacher) <= REQUIRED | OPTIONAL:
            message = (
                "teacher must be dict(config=..., checkpoint=...), and may have precision='bfloat16' and "
                f"cache='FOLDER'; got the keys {sorted(teacher)}"
            )
            raise ConfigError(message)
        precision = teacher.get("precision", "training")
        if precision not in PRECISIONS:
            raise ConfigError(f"the teacher's precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
        config = load_config(teacher["config"])
        module: Any = load_model(config, teacher["checkpoint"])
        for parameter in module.parameters():
            parameter.requires_grad_(requires_grad=False)
        module = module.to(memory_format=torch.channels_last)
        checkpoint = str(teacher["checkpoint"])
        weights = sha256_of(Path(checkpoint)) if Path(checkpoint).is_file() else checkpoint
        name = hashlib.sha256((weights + config.pretty_text).encode()).hexdigest()[:12]
        return cls(module, weights_name=name, precision=precision, cache_folder=teacher.get("cache"))

    def __call__(self, images: Tensor) -> TeacherOutputs:
        """Its outputs for normalised images (N, 3, H, W)."""
        if self.cache_folder is None:
            kinds = self.compute(images)
        else:
            if self._cache is None:
                cut = f"_towers{self.recorder.convs}" if self.recorder else ""
                kind = f"head{'_neck' if self.with_features else ''}{cut}"
                self._cache = TeacherCache(
                    self.cache_folder, teacher=f"{self.weights_name}_{self.dtype_name(images.device)}", kind=kind
                )
            kinds = self._cache(images, self.compute)
        # Outside of inference mode: what the student's backward saves must be made here, as flattening does.
        towers = dict(zip(TOWERS, kinds[-2:], strict=True)) if self.recorder else {}
        maps = kinds[: len(kinds) - len(towers) - self.with_features]
        features = [level.clone() for level in kinds[len(maps)]] if self.with_features else []
        return TeacherOutputs(read_maps(self.module.bbox_head, maps), features, towers)

    @torch.inference_mode()
    def compute(self, images: Tensor) -> list[list[Tensor]]:
        """Maps per level, float32: the head's, then the neck's and the towers' where they are asked for."""
        with self.autocast(images.device):
            features = self.module.extract_feat(images.to(memory_format=torch.channels_last))
            kinds = list(self.module.bbox_head(features))
        if self.with_features:
            kinds.append(features)
        if self.recorder:
            kinds += self.recorder.take().values()
        return [[level.float() for level in kind] for kind in kinds]

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """In what follows, its network runs in its precision."""
        if self.precision == "training":
            return contextlib.nullcontext()
        dtype = PRECISIONS[self.precision]
        return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)

    def dtype_name(self, device: torch.device) -> str:
        """Of what its network computes in now, such as `bfloat16`."""
        with self.autocast(device):
            enabled = torch.is_autocast_enabled(device.type)
            dtype = torch.get_autocast_dtype(device.type) if enabled else torch.float32
        return str(dtype).removeprefix("torch.")


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


def describe_centres(model: Any) -> dict[str, Any]:
    """Where in its cell of the map a detector's location stands."""
    generator = model.bbox_head.prior_generator
    centre = generator.center_offset if hasattr(generator, "center_offset") else generator.offset
    return {"centre of a location, in strides": float(centre)}


def describe_distribution(model: Any) -> dict[str, Any]:
    """How a detector's box branch is built."""
    return {"reg_max": getattr(model.bbox_head, "reg_max", None), **describe_centres(model)}


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
    for term in terms:
        for role, model in (("teacher", teacher), ("student", student))[: 2 if term.branch == "own" else 1]:
            if term.needs_edges and not has_distribution(model.bbox_head):
                message = (
                    f"{term.loss_name} compares edge distributions, and the {role}'s {type(model.bbox_head).__name__} "
                    "has none: use IoULocalizationKD, which compares boxes"
                )
                raise ConfigError(message)
    for describe in asked:
        got, wanted = describe(teacher), describe(student)
        for name, value in wanted.items():
            if got[name] != value:
                message = (
                    f"the teacher does not fit the student: its {name} is {got[name]}, the student's {value}; "
                    "train a teacher on the same classes, strides, reg_max and normalisation"
                )
                raise ConfigError(message)
