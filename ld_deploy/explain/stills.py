"""A few training images that stay the same, and looking at them without disturbing the training."""

from __future__ import annotations

import copy
import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ld_deploy.distill.batch import DistillBatch
    from ld_deploy.distill.teacher import FrozenTeacher

SEED = 0  # of the augmentation: the images are the same in every run and after a resume
TRIES = 10  # samples looked at for each image wanted, to find some with ground truth


@dataclass(frozen=True, eq=False)
class Look:
    """What student and teacher make of one image.

    Args:
        image: uint8 (H, W, 3), RGB, as the network gets it but for the padding.
        canvas_hw: height and width with the padding, in pixels.
        labels: int64 (m,): classes of the ground truth, whose boxes the batch has.
        batch: of this one image.
        regions: by place of the term, weights (1, L).
    """

    image: NDArray[np.uint8]
    canvas_hw: tuple[int, int]
    labels: Tensor
    batch: DistillBatch
    regions: dict[int, Tensor]


def load_stills(dataset: Any, *, count: int) -> list[dict[str, Any]]:
    """The first samples with ground truth, as the training's own pipeline gives them.

    Args:
        dataset: of the training. A copy is read: some transforms keep what they have seen.
        count: of samples; fewer where the data set has fewer. Samples without ground truth only where there are no
            others among the first `TRIES * count`.

    Returns:
        Samples of `inputs`, uint8 (3, H, W), and `data_samples`. No random state of the process has changed.
    """
    with same_random_state():
        random.seed(SEED)
        np.random.seed(SEED)  # noqa: NPY002 - what mmdet's transforms draw from
        torch.manual_seed(SEED)
        dataset = copy.deepcopy(dataset)
        samples = [dataset[place] for place in range(min(len(dataset), TRIES * count))]
    samples.sort(key=lambda sample: not len(sample["data_samples"].gt_instances))  # stable: those without come last
    return samples[:count]


def look(model: Any, still: dict[str, Any]) -> Look:
    """A training step's forward on one image. Every process has to take part: the losses reduce over all of them.

    Args:
        model: a `DistilledDetector`, not wrapped; nothing of it changes.
        still: of `load_stills`.
    """
    sample = copy.deepcopy(still)  # the preprocessor writes into it
    data = {"inputs": [sample["inputs"]], "data_samples": [sample["data_samples"]]}
    # Outputs of a batch of one differ in the last bits from those of the training's batches: none go into the cache.
    with undisturbed(model), without_cache(model.teacher), torch.no_grad():
        data = model.data_preprocessor(data, training=False)
        _, batch = model.step(data["inputs"], data["data_samples"])
        regions = model.distillation.regions(batch)
    height, width = data["inputs"].shape[-2:]
    return Look(
        image=np.ascontiguousarray(still["inputs"].clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()[..., ::-1]),
        canvas_hw=(height, width),
        labels=data["data_samples"][0].gt_instances.labels,
        batch=batch,
        regions=regions,
    )


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """A block that uses a model in training mode and leaves it, and all random states, as they were.

    Layers without parts (batch norm, dropout) are in eval mode meanwhile: batch norm takes its running statistics, as
    the deployed student will.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    for module in modes:
        if not any(True for _ in module.children()):
            module.eval()
    try:
        with same_random_state():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def without_cache(teacher: FrozenTeacher) -> Iterator[None]:
    """A block in which a teacher neither reads nor fills its cache."""
    folder, teacher.cache_folder = teacher.cache_folder, None
    try:
        yield
    finally:
        teacher.cache_folder = folder


@contextmanager
def same_random_state() -> Iterator[None]:
    """A block after which Python, numpy and torch draw what they would have drawn without it."""
    state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - the legacy state is what others use
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(numpy_state)  # noqa: NPY002
