"""What the tests of native code share."""

from __future__ import annotations

import ctypes
import shutil
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from ld_runtime import native
from ld_runtime.native_structs import LdNmsSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.model_card import NmsSettings

# Where a compiler is, `pip install` builds the library: that it is missing there is a failure and no reason to skip.
needs_native = pytest.mark.skipif(
    not native.is_available() and not any(map(shutil.which, ("c++", "g++", "clang++", "cl"))), reason="no C++ compiler"
)


class Scene(NamedTuple):
    """Candidates of one image."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


def crowd(seed: int, count: int, *, classes: int = 3, crowding: int = 12) -> Scene:
    """Boxes jittered around count / crowding centres, in no order: many suppressions and votes."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 600, (max(count // crowding, 1), 2))
    sizes = rng.uniform(10, 200, corners.shape)
    which = rng.integers(0, len(corners), count)
    boxes = np.concatenate([corners[which], corners[which] + sizes[which]], axis=1)
    boxes += rng.normal(0, 0.06, boxes.shape) * np.tile(sizes[which], 2)
    labels = (which + rng.integers(0, 2, count)) % classes
    return Scene(boxes.astype(np.float32), rng.uniform(0, 1, count).astype(np.float32), labels.astype(np.int64))


def chain(count: int, *, step: float = 20) -> Scene:
    """Each box suppresses the next one only, so every other one stays: the longest chain of decisions."""
    x = step * np.arange(count)
    boxes = np.stack([x, np.zeros(count), x + 100, np.full(count, 100)], axis=1)
    return Scene(boxes.astype(np.float32), np.linspace(0.9, 0.1, count, dtype=np.float32), np.zeros(count, np.int64))


def device_form(scene: Scene, *, settings: NmsSettings, threads: int) -> tuple[Scene, int]:
    """The functions of the CUDA kernels on the host, as `threads` threads; the detections and the rounds it took."""
    boxes, scores, labels = scene
    out = Scene(*(np.empty((settings.max_detections, *one.shape[1:]), one.dtype) for one in scene))
    rounds = ctypes.c_int32()
    found = native.load_library().ld_cluster_diou_nms_device_form(
        *native._outputs((boxes, scores, labels)),
        len(scores),
        ctypes.byref(LdNmsSettings.of(settings)),
        threads,
        *native._outputs(out),
        ctypes.byref(rounds),
    )
    assert found >= 0
    return Scene(*(one[:found] for one in out)), rounds.value
