"""Where the kernels run in these tests: on the host under an emulation of CUDA, and on a GPU where there is one.

On both, each buffer stands between guards that no kernel may touch, and starts as garbage.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from cuda.bindings import driver
from cuda.bindings import runtime as cudart

from ld_runtime.cuda_kernels import CudaKernels, DeviceDetections, HeadShape, MapType, load_kernels
from ld_runtime.rotated_nms import RotatedNmsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.model_card import CandidateRule, NmsSettings

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "runtime" / "native"
EMULATION = Path(__file__).parent / "emulation"
GUARD = 256
UNTOUCHED = 0x5A


@cache
def missing_gpu() -> str:
    """Why no kernel can run on a GPU here, or nothing."""
    try:
        (error,) = driver.cuInit(0)
    except Exception as cause:  # noqa: BLE001 - the class depends on the version of cuda-bindings
        return f"no CUDA driver: {str(cause).splitlines()[0]}"
    if error != driver.CUresult.CUDA_SUCCESS:
        return f"cuInit: {error.name}"
    return ""


def build_emulation(folder: Path) -> Path:
    """The kernels as they are, compiled for the host with checks of undefined behaviour."""
    path = folder / "libld_deploy_emulated.so"
    sources = [*sorted((NATIVE / "cuda").glob("*.cu")), EMULATION / "entry_points.cpp"]
    flags = [
        *("-x", "c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden"),
        *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        *("-fsanitize=undefined", "-fno-sanitize-recover=all", "-static-libubsan"),
    ]
    command = [
        *(shutil.which("g++") or "c++", *flags, "-I", EMULATION, "-I", NATIVE / "include", *sources),
        *("-o", path),
    ]
    subprocess.run([str(one) for one in command], check=True)
    return path


class Memory(Protocol):
    """Raw memory of one place."""

    def allocate(self, size: int) -> int: ...
    def write(self, pointer: int, data: bytes) -> None: ...
    def read(self, pointer: int, size: int) -> bytes: ...
    def free(self, pointer: int) -> None: ...


class HostMemory:
    def __init__(self) -> None:
        self._held: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        block = ctypes.create_string_buffer(size)
        self._held[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def write(self, pointer: int, data: bytes) -> None:
        ctypes.memmove(pointer, data, len(data))

    def read(self, pointer: int, size: int) -> bytes:
        return ctypes.string_at(pointer, size)

    def free(self, pointer: int) -> None:
        del self._held[pointer]


class DeviceMemory:
    def allocate(self, size: int) -> int:
        return int(checked(cudart.cudaMalloc(size)))

    def write(self, pointer: int, data: bytes) -> None:
        checked(cudart.cudaMemcpy(pointer, data, len(data), cudart.cudaMemcpyKind.cudaMemcpyHostToDevice))

    def read(self, pointer: int, size: int) -> bytes:
        data = bytearray(size)
        view = (ctypes.c_char * size).from_buffer(data)
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        checked(cudart.cudaMemcpy(ctypes.addressof(view), pointer, size, kind))  # waits for the default stream
        return bytes(data)

    def free(self, pointer: int) -> None:
        checked(cudart.cudaFree(pointer))


def checked(result: tuple[Any, ...]) -> Any:
    """The values of a CUDA runtime call that succeeded."""
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        raise RuntimeError(error.name)
    return values[0] if len(values) == 1 else tuple(values)


class Found(NamedTuple):
    """Detections of a batch, padded."""

    num_detections: NDArray[np.int32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Machine:
    """Kernels and the memory that they work on."""

    def __init__(self, name: str, kernels: CudaKernels, memory: Memory, *, library: ctypes.CDLL | None = None) -> None:
        self.name = name
        self.kernels = kernels
        self._memory = memory
        self._library = library
        self._random = np.random.default_rng(0)  # for garbage
        self._buffers: dict[int, tuple[int, int]] = {}  # where it lies -> its size, where its memory starts

    @classmethod
    def emulated(cls, path: Path) -> Machine:
        return cls("emulated", CudaKernels(path), HostMemory(), library=ctypes.CDLL(str(path)))

    @classmethod
    def cuda(cls) -> Machine:
        return cls("cuda", load_kernels(), DeviceMemory())

    def shuffle(self, seed: int) -> None:
        """Another order of blocks and threads; a GPU has its own."""
        if self._library is not None:
            self._library.ld_emulation_seed(seed)

    def empty(self, size: int, *, offset: int = 0) -> int:
        """A buffer of garbage, `offset` bytes behind an aligned address."""
        start = self._memory.allocate(size + 4 * GUARD)
        pointer = -(-start // GUARD) * GUARD + GUARD + offset
        guard = bytes([UNTOUCHED]) * GUARD
        self._memory.write(pointer - GUARD, guard + self._random.bytes(size) + guard)
        self._buffers[pointer] = (size, start)
        return pointer

    def put(self, array: NDArray[Any]) -> int:
        pointer = self.empty(array.nbytes)
        self._memory.write(pointer, np.ascontiguousarray(array).tobytes())
        return pointer

    def get(self, pointer: int, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        return np.frombuffer(self._memory.read(pointer, self._buffers[pointer][0]), dtype).reshape(shape).copy()

    def free_all(self) -> None:
        """Frees every buffer; none of their guards may have changed."""
        guards = b""
        for pointer, (size, start) in self._buffers.items():
            guards += self._memory.read(pointer - GUARD, GUARD) + self._memory.read(pointer + size, GUARD)
            self._memory.free(start)
        self._buffers.clear()
        assert set(guards) <= {UNTOUCHED}, "a kernel wrote outside its buffers"

    def outputs(self, batch: int, most: int, *, numbers: int = 4) -> DeviceDetections:
        """Room for boxes of so many numbers."""
        return DeviceDetections(*(self.empty(batch * size) for size in (4, 4 * numbers * most, 4 * most, 8 * most)))

    def found(self, outputs: DeviceDetections, batch: int, most: int, *, numbers: int = 4) -> Found:
        return Found(
            self.get(outputs.num_detections, (batch,), np.int32),
            self.get(outputs.boxes, (batch, most, numbers), np.float32),
            self.get(outputs.scores, (batch, most), np.float32),
            self.get(outputs.labels, (batch, most), np.int64),
        )

    def nms(
        self,
        boxes: NDArray[Any],
        scores: NDArray[Any],
        labels: NDArray[np.int64],
        *,
        settings: NmsSettings | RotatedNmsSettings,
        workspace_offset: int = 0,
    ) -> Found:
        """Of a batch: boxes (N, K, 4), rotated (N, K, 5), scores (N, K), labels (N, K)."""
        batch, candidates = scores.shape
        numbers, rotated = boxes.shape[2], isinstance(settings, RotatedNmsSettings)
        outputs = self.outputs(batch, settings.max_detections, numbers=numbers)
        self.kernels.enqueue_nms(
            boxes=self.put(boxes),
            scores=self.put(scores),
            labels=self.put(labels),
            map_type=map_type(boxes),
            batch=batch,
            candidates=candidates,
            settings=settings,
            detections=outputs,
            workspace=self.empty(
                self.kernels.nms_workspace(batch=batch, candidates=candidates, rotated=rotated), offset=workspace_offset
            ),
        )
        found = self.found(outputs, batch, settings.max_detections, numbers=numbers)
        self.free_all()
        return found

    def gfl(
        self,
        class_logits: Sequence[NDArray[Any]],
        edge_logits: Sequence[NDArray[Any]],
        *,
        strides: tuple[int, ...],
        rule: CandidateRule,
        settings: NmsSettings | RotatedNmsSettings,
        workspace_offset: int = 0,
        before: tuple[Sequence[NDArray[Any]], Sequence[NDArray[Any]]] | None = None,
    ) -> Found:
        """Of a batch: by level, maps (N, C, h, w) and (N, 4 * bins, h, w), rotated (N, 5 * bins, h, w).

        `before` are maps of the same shapes that go through the same workspace and outputs first.
        """
        batch, classes = class_logits[0].shape[:2]
        levels = tuple((one.shape[2], one.shape[3]) for one in class_logits)
        rotated = isinstance(settings, RotatedNmsSettings)
        numbers = 5 if rotated else 4
        head = HeadShape(levels=levels, strides=strides, classes=classes, bins=edge_logits[0].shape[1] // numbers)
        outputs = self.outputs(batch, settings.max_detections, numbers=numbers)
        size = self.kernels.gfl_workspace(head, batch=batch, rule=rule, rotated=rotated)
        workspace = self.empty(size, offset=workspace_offset)
        for maps in ([before] if before else []) + [(class_logits, edge_logits)]:
            self.kernels.enqueue_gfl(
                head,
                class_logits=[self.put(one) for one in maps[0]],
                edge_logits=[self.put(one) for one in maps[1]],
                map_type=map_type(class_logits[0]),
                batch=batch,
                rule=rule,
                settings=settings,
                detections=outputs,
                workspace=workspace,
            )
        found = self.found(outputs, batch, settings.max_detections, numbers=numbers)
        self.free_all()
        return found


def map_type(array: NDArray[Any]) -> MapType:
    return "float16" if array.dtype == np.float16 else "float32"
