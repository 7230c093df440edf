"""The CUDA kernels, through ctypes: device memory in, device memory out. The only module that loads their library.

`make kernels` in a checkout builds it where the CUDA compiler is. What holds for the calls (one stream, nothing
allocated or waited for, the same result in every run) is said in runtime/native/include/ld_kernels.h.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import ld_runtime
from ld_runtime.errors import BackendMissingError, EngineError
from ld_runtime.native_structs import LdCandidateRule, LdLevel, LdNmsSettings, LdRotatedNmsSettings
from ld_runtime.rotated_nms import RotatedNmsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.model_card import CandidateRule, NmsSettings

NAME = "libld_deploy_cuda.so"
MapType = Literal["float32", "float16"]
_TYPES: dict[MapType, int] = {"float32": 0, "float16": 1}


@dataclass(frozen=True)
class DeviceDetections:
    """Device pointers of the outputs: num_detections int32 (N), boxes float32 (N, max_detections, 4), or 5 if rotated,
    scores float32 (N, max_detections), labels int64 (N, max_detections).
    """  # noqa: D205

    num_detections: int
    boxes: int
    scores: int
    labels: int


@dataclass(frozen=True)
class HeadShape:
    """A GFL head: of each level (h, w) and the stride in pixels; C classes; bins = reg_max + 1."""

    levels: tuple[tuple[int, int], ...]
    strides: tuple[int, ...]
    classes: int
    bins: int


class _Detections(ctypes.Structure):
    """`LdDetections` of ld_kernels.h."""

    _fields_ = tuple((name, ctypes.c_void_p) for name in ("num_detections", "boxes", "scores", "labels"))

    @classmethod
    def of(cls, detections: DeviceDetections) -> _Detections:
        return cls(detections.num_detections, detections.boxes, detections.scores, detections.labels)


def library_path() -> Path | None:
    """Where the library is, or None."""
    paths = [Path(folder) / "lib" / NAME for folder in ld_runtime.__path__]
    return next((path for path in paths if path.is_file()), None)


@cache
def load_kernels() -> CudaKernels:
    """The library that `make kernels` built.

    Raises:
        BackendMissingError: It was not built, or cannot be loaded.
    """
    path = library_path()
    if path is None:
        folders = ", ".join(str(Path(folder) / "lib") for folder in ld_runtime.__path__)
        raise BackendMissingError(f"the CUDA kernels were not built: no {NAME} in {folders}; `make kernels` builds it")
    return CudaKernels(path)


class CudaKernels:
    """Functions of one library: of upright and of rotated boxes, as the settings are.

    All but the sizes are device pointers. A workspace has at least the bytes asked for, of any alignment, and belongs
    to one call until that has run.
    """

    def __init__(self, path: Path) -> None:
        """Loads `path`.

        Raises:
            BackendMissingError: It cannot be loaded.
        """
        try:
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            message = f"the CUDA kernels {path} cannot be loaded ({error}); build them for this system: `make kernels`"
            raise BackendMissingError(message) from error
        pointer, integer = ctypes.c_void_p, ctypes.c_int32
        pointers, levels = ctypes.POINTER(pointer), ctypes.POINTER(LdLevel)
        rule, outputs = ctypes.POINTER(LdCandidateRule), ctypes.POINTER(_Detections)
        for kind, detect, numbers in (
            ("cluster_diou_nms", "gfl_detect", LdNmsSettings),
            ("rotated_cluster_nms", "rotated_gfl_detect", LdRotatedNmsSettings),
        ):
            rest = [ctypes.POINTER(numbers), outputs, pointer, pointer]
            for op, sizes, inputs in (
                (kind, [integer, integer], [pointer, pointer, ctypes.c_int, pointer, integer, integer]),
                (
                    detect,
                    [integer, levels, integer, rule],
                    [pointers, pointers, ctypes.c_int, integer, levels, integer, rule],
                ),
            ):
                self._function(op, "workspace").argtypes = sizes
                self._function(op, "workspace").restype = ctypes.c_size_t
                self._function(op, "enqueue").argtypes = [*inputs, *rest]

    def _function(self, op: str, what: str) -> Any:
        return getattr(self._library, f"ld_{op}_{what}")

    def nms_workspace(self, *, batch: int, candidates: int, rotated: bool = False) -> int:
        """Bytes for `enqueue_nms`, or 0 beyond the limits."""
        op = "rotated_cluster_nms" if rotated else "cluster_diou_nms"
        return int(self._function(op, "workspace")(batch, candidates))

    def enqueue_nms(
        self,
        *,
        boxes: int,
        scores: int,
        labels: int,
        map_type: MapType = "float32",
        batch: int,
        candidates: int,
        settings: NmsSettings | RotatedNmsSettings,
        detections: DeviceDetections,
        workspace: int,
        stream: int = 0,
    ) -> None:
        """`ld_deploy::ClusterDIoUNMS`: boxes (N, K, 4) and scores (N, K) of `map_type`, labels int64 (N, K).

        With `RotatedNmsSettings` `ld_deploy::RotatedClusterNMS`: boxes (N, K, 5).

        Raises:
            EngineError: A launch failed, or a size is beyond the limits.
        """
        numbers, rotated = _settings(settings)
        op = "rotated_cluster_nms" if rotated else "cluster_diou_nms"
        _check(
            self._function(op, "enqueue")(
                *(boxes, scores, _TYPES[map_type], labels, batch, candidates),
                *(numbers, _Detections.of(detections), workspace, stream),
            )
        )

    def gfl_workspace(self, head: HeadShape, *, batch: int, rule: CandidateRule, rotated: bool = False) -> int:
        """Bytes for `enqueue_gfl`, or 0 beyond the limits."""
        op = "rotated_gfl_detect" if rotated else "gfl_detect"
        return int(self._function(op, "workspace")(batch, *_head(head, rule)))

    def enqueue_gfl(
        self,
        head: HeadShape,
        *,
        class_logits: Sequence[int],
        edge_logits: Sequence[int],
        map_type: MapType = "float32",
        batch: int,
        rule: CandidateRule,
        settings: NmsSettings | RotatedNmsSettings,
        detections: DeviceDetections,
        workspace: int,
        stream: int = 0,
    ) -> None:
        """`ld_deploy::GFLDetect`: by level, maps (N, C, h, w) and (N, 4 * bins, h, w) of `map_type`.

        With `RotatedNmsSettings` `ld_deploy::RotatedGFLDetect`: maps (N, C, h, w) and (N, 5 * bins, h, w).

        Raises:
            EngineError: A launch failed, or a size is beyond the limits.
        """
        pointers = ctypes.c_void_p * len(head.levels)
        numbers, rotated = _settings(settings)
        op = "rotated_gfl_detect" if rotated else "gfl_detect"
        _check(
            self._function(op, "enqueue")(
                *(pointers(*class_logits), pointers(*edge_logits), _TYPES[map_type], batch, *_head(head, rule)),
                *(numbers, _Detections.of(detections), workspace, stream),
            )
        )


def _settings(settings: NmsSettings | RotatedNmsSettings) -> tuple[LdNmsSettings | LdRotatedNmsSettings, bool]:
    """As the library takes them, and whether they are of rotated boxes."""
    if isinstance(settings, RotatedNmsSettings):
        return LdRotatedNmsSettings.of(settings), True
    return LdNmsSettings.of(settings), False


def _head(head: HeadShape, rule: CandidateRule) -> tuple[ctypes.Array[LdLevel], int, LdCandidateRule]:
    levels = [LdLevel(height, width, stride) for (height, width), stride in zip(head.levels, head.strides, strict=True)]
    canvas = [head.strides[0] * side for side in head.levels[0]]
    numbers = LdCandidateRule(head.classes, head.bins, rule.per_level_top_k, rule.pre_nms_top_k, *canvas)
    return (LdLevel * len(levels))(*levels), len(levels), numbers


def _check(code: int) -> None:
    if code:
        raise EngineError(f"CUDA error {code} from the detection kernels (1: a size beyond the limits of ld_kernels.h)")
