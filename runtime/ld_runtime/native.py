"""The host library in C++, through ctypes: the only module that loads it.

It is built by `pip install` where there is a C++ compiler, and without one the rest works in numpy and in the graph.
After a change of runtime/native, build it again with `pip install --no-deps -e .` in the checkout.
"""

from __future__ import annotations

import ctypes
import math
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ld_runtime
from ld_runtime.engines import EngineOutput
from ld_runtime.errors import BackendMissingError, InputError
from ld_runtime.native_structs import MOST, LdCandidateRule, LdLevel, LdNmsSettings, LdRotatedNmsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Detected
    from ld_runtime.model_card import CandidateRule, NmsSettings
    from ld_runtime.rotated_nms import RotatedNmsSettings

_SUFFIX = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
_NAME = ("" if sys.platform == "win32" else "lib") + "ld_deploy_host" + _SUFFIX
_BUILD = "install a C++17 compiler (Debian: apt install g++) and build it with `pip install --no-deps --force-reinstall"
_MOST_LOGITS = 2**32 - 1
Floats, Ints = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_int64)
_Types = tuple[Any, ...]


def library_path() -> Path | None:
    """Where the library is, or None. An editable install has it apart from the modules."""
    paths = (Path(folder) / "lib" / _NAME for folder in ld_runtime.__path__)
    return next((path for path in paths if path.is_file()), None)


@cache
def load_library() -> ctypes.CDLL:
    """The library, its functions declared.

    Raises:
        BackendMissingError: It was not built, or cannot be loaded.
    """
    path = library_path()
    if path is None:
        looked = ", ".join(str(Path(folder) / "lib") for folder in ld_runtime.__path__)
        message = f"the native host library was not built when ld-deploy was installed: no {_NAME} in {looked}"
        raise BackendMissingError(f"{message}; {_BUILD} ld-deploy` (in a checkout: `pip install --no-deps -e .`)")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        message = f"the native host library {path} cannot be loaded ({error}): it was built for another system"
        raise BackendMissingError(f"{message}; {_BUILD} ld-deploy`") from error
    outputs: _Types = (Floats, Floats, Ints)
    pointers = ctypes.POINTER(Floats)
    maps: _Types = (pointers, pointers, ctypes.POINTER(LdLevel), ctypes.c_int32, ctypes.POINTER(LdCandidateRule))
    settings = ctypes.POINTER(LdNmsSettings)
    library.ld_cluster_diou_nms.argtypes = [Floats, Floats, Ints, ctypes.c_int32, settings, *outputs]
    rotated_settings = ctypes.POINTER(LdRotatedNmsSettings)
    library.ld_rotated_cluster_nms.argtypes = [Floats, Floats, Ints, ctypes.c_int32, rotated_settings, *outputs]
    library.ld_gfl_candidates.argtypes = [*maps, ctypes.c_float, *outputs]
    library.ld_gfl_detect.argtypes = [*maps, settings, *outputs]
    library.ld_rotated_gfl_candidates.argtypes = [*maps, ctypes.c_float, *outputs]
    library.ld_rotated_gfl_detect.argtypes = [*maps, rotated_settings, *outputs]
    return library


def is_available() -> bool:
    """Whether the library was built and can be loaded."""
    try:
        load_library()
    except BackendMissingError:
        return False
    return True


def cluster_diou_nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], *, settings: NmsSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """See `ld_runtime.cluster_diou_nms`, whose arguments and results these are.

    Labels, scores and which boxes are kept are the twin's; voted boxes agree to about 1e-4 px.

    Raises:
        InputError: An array has another type, shape or memory order.
        BackendMissingError: The library was not built.
    """
    run = load_library().ld_cluster_diou_nms
    return _nms(run, boxes, scores, labels, sides=4, settings=LdNmsSettings.of(settings))


def rotated_cluster_nms(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], *, settings: RotatedNmsSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """See `ld_runtime.rotated_nms.rotated_cluster_nms`, whose arguments and results these are.

    Labels, scores and which boxes are kept are the twin's; voted boxes agree to about 1e-4 px.

    Raises:
        InputError: An array has another type, shape or memory order.
        BackendMissingError: The library was not built.
    """
    run = load_library().ld_rotated_cluster_nms
    return _nms(run, boxes, scores, labels, sides=5, settings=LdRotatedNmsSettings.of(settings))


def _nms(
    run: Callable[..., int],
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    sides: int,
    settings: LdNmsSettings | LdRotatedNmsSettings,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Calls an NMS of the library on boxes of `sides` numbers."""
    count = len(boxes)
    _check("boxes", boxes, np.float32, (count, sides))
    _check("scores", scores, np.float32, (count,))
    _check("labels", labels, np.int64, (count,))
    most = max(0, min(count, settings.max_detections))
    out = np.empty((most, sides), np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    found = run(_floats(boxes), _floats(scores), _ints(labels), count, settings, *_outputs(out))
    return _first(found, out)


def gfl_candidates(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    *,
    strides: Sequence[int],
    rule: CandidateRule,
    score_threshold: float,
    canvas_hw: tuple[int, int] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """See `ld_runtime.gfl_candidates.gfl_candidates`, whose arguments and results these are.

    Raises:
        InputError: A map has another type, shape or memory order.
        BackendMissingError: The library was not built.
    """
    head = _Head(*_as_batch(class_logits, edge_logits), strides=strides, rule=rule, canvas_hw=canvas_hw)
    return _candidates(load_library().ld_gfl_candidates, head, rule=rule, score_threshold=score_threshold)


def rotated_gfl_candidates(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    *,
    strides: Sequence[int],
    rule: CandidateRule,
    score_threshold: float,
) -> Detected:
    """See `ld_runtime.gfl_candidates.rotated_gfl_candidates`, whose arguments and results these are.

    Raises:
        InputError: A map has another type, shape or memory order.
        BackendMissingError: The library was not built.
    """
    head = _Head(*_as_batch(class_logits, edge_logits), strides=strides, rule=rule, distributions=5)
    return _candidates(load_library().ld_rotated_gfl_candidates, head, rule=rule, score_threshold=score_threshold)


def _as_batch(*kinds: Sequence[NDArray[np.float32]]) -> list[list[NDArray[np.float32]]]:
    return [[one[None] for one in kind] for kind in kinds]


def _candidates(run: Callable[..., int], head: _Head, *, rule: CandidateRule, score_threshold: float) -> Detected:
    most = max(0, min(rule.pre_nms_top_k, head.logits))
    out = np.empty((most, head.sides), np.float32), np.empty(most, np.float32), np.empty(most, np.int64)
    found = run(*head.arguments(0), score_threshold, *_outputs(out))
    return _first(found, out)


def gfl_detect(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    *,
    strides: Sequence[int],
    nms: NmsSettings,
    candidates: CandidateRule,
) -> EngineOutput:
    """From the maps of a GFL head to detections: `gfl_candidates` and `cluster_diou_nms` of each image.

    Args:
        class_logits: of each level, float32 (N, C, h, w).
        edge_logits: of each level, float32 (N, 4 * (reg_max + 1), h, w).
        strides: of each level, in pixels. The canvas is strides[0] * (h, w) of the first level.
        nms: its settings.
        candidates: which (location, class) pairs reach it.

    Raises:
        InputError: A map has another type, shape or memory order.
        BackendMissingError: The library was not built.
    """
    head = _Head(class_logits, edge_logits, strides=strides, rule=candidates)
    return _detect(load_library().ld_gfl_detect, head, settings=LdNmsSettings.of(nms), most=nms.max_detections)


def rotated_gfl_detect(
    class_logits: Sequence[NDArray[np.float32]],
    edge_logits: Sequence[NDArray[np.float32]],
    *,
    strides: Sequence[int],
    nms: RotatedNmsSettings,
    candidates: CandidateRule,
) -> EngineOutput:
    """As `gfl_detect`, of a head of rotated boxes: edge logits (N, 5 * (reg_max + 1), h, w).

    Raises:
        InputError: A map has another type, shape or memory order.
        BackendMissingError: The library was not built.
    """
    head = _Head(class_logits, edge_logits, strides=strides, rule=candidates, distributions=5)
    settings = LdRotatedNmsSettings.of(nms)
    return _detect(load_library().ld_rotated_gfl_detect, head, settings=settings, most=nms.max_detections)


def _detect(
    run: Callable[..., int], head: _Head, *, settings: LdNmsSettings | LdRotatedNmsSettings, most: int
) -> EngineOutput:
    """Calls a function from maps to detections, image by image."""
    batch, most = head.batch, max(0, most)
    boxes, scores = np.zeros((batch, most, head.sides), np.float32), np.zeros((batch, most), np.float32)
    labels = np.full((batch, most), -1, np.int64)
    counts = []
    for image in range(batch):
        outputs = _outputs((boxes[image], scores[image], labels[image]))
        counts.append(_checked_count(run(*head.arguments(image), settings, *outputs)))
    return EngineOutput(num_detections=np.array(counts, np.int32), boxes=boxes, scores=scores, labels=labels)


class _Head:
    """Maps that were checked, as the library takes them; a location has as many distributions as a box has numbers."""

    def __init__(
        self,
        class_logits: Sequence[NDArray[np.float32]],
        edge_logits: Sequence[NDArray[np.float32]],
        *,
        strides: Sequence[int],
        rule: CandidateRule,
        canvas_hw: tuple[int, int] | None = None,
        distributions: int = 4,
    ) -> None:
        if not len(class_logits) == len(edge_logits) == len(strides) > 0:
            counts = f"{len(class_logits)}, {len(edge_logits)} and {len(strides)}"
            raise InputError(f"class_logits, edge_logits and strides must be of the same levels, got {counts}")
        if any(one.ndim != 4 for one in (*class_logits, *edge_logits)) or edge_logits[0].shape[1] % distributions:
            shapes = f"{class_logits[0].shape} and {edge_logits[0].shape}"
            wanted = f"class logits (N, C, h, w) and edge logits (N, {distributions} * (reg_max + 1), h, w)"
            raise InputError(f"need {wanted}, got {shapes}")
        batch, classes, height, width = class_logits[0].shape
        channels = edge_logits[0].shape[1]
        self.batch, self.sides = batch, distributions
        for level, (logits, edges) in enumerate(zip(class_logits, edge_logits, strict=True)):
            _check(f"class_logits[{level}]", logits, np.float32, (batch, classes, *logits.shape[2:]))
            _check(f"edge_logits[{level}]", edges, np.float32, (batch, channels, *logits.shape[2:]))
        self.logits = sum(math.prod(logits.shape[1:]) for logits in class_logits)
        if not all((channels, self.logits)) or self.logits >= _MOST_LOGITS:
            raise InputError(
                f"need 1 to {_MOST_LOGITS - 1} class logits and 1 or more bins, got {class_logits[0].shape}"
            )
        self._maps = class_logits, edge_logits
        levels = [LdLevel(*logits.shape[2:], stride) for logits, stride in zip(class_logits, strides, strict=True)]
        self._levels = (LdLevel * len(levels))(*levels)
        canvas = canvas_hw or (height * strides[0], width * strides[0])
        limits = (min(most, MOST) for most in (rule.per_level_top_k, rule.pre_nms_top_k))
        self._rule = LdCandidateRule(classes, channels // distributions, *limits, *canvas)

    def arguments(self, image: int) -> tuple[Any, ...]:
        """What the library's functions take of one image."""
        pointers = Floats * len(self._levels)
        maps = (pointers(*(_floats(one[image]) for one in kind)) for kind in self._maps)
        return (*maps, self._levels, len(self._levels), self._rule)


def _check(name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """The library reads memory as it is: nothing is converted on the way."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        order = "" if array.flags.c_contiguous else ", not contiguous"
        message = f"{name} must be {np.dtype(dtype)} {shape} in C order, got {array.dtype} {array.shape}{order}"
        raise InputError(f"{message}: convert it with np.ascontiguousarray(array, np.{np.dtype(dtype)})")


def _floats(array: NDArray[np.float32]) -> Any:
    return array.ctypes.data_as(Floats)


def _ints(array: NDArray[np.int64]) -> Any:
    return array.ctypes.data_as(Ints)


def _outputs(arrays: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]) -> tuple[Any, ...]:
    boxes, scores, labels = arrays
    return _floats(boxes), _floats(scores), _ints(labels)


def _checked_count(found: int) -> int:
    if found < 0:
        raise MemoryError("the native host library ran out of memory")
    return found


def _first(
    found: int, arrays: tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    count = _checked_count(found)
    boxes, scores, labels = arrays
    return boxes[:count], scores[:count], labels[:count]
