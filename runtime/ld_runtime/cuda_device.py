"""Device and pinned memory, streams, events and graphs of one GPU: the only module that names cuda-bindings."""

from __future__ import annotations

import ctypes
import logging
import re
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import BackendMissingError, ConfigError, EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GpuFacts:
    """What a report says of a GPU.

    Args:
        name: as the driver gives it.
        compute_capability: such as 8.9.
        pci_bus_id: by which other tools number it.
    """

    name: str
    compute_capability: str
    pci_bus_id: str


class CudaDevice:
    """One GPU. What it allocates is freed by `close`, or earlier by the scope that it was allocated in.

    Args:
        index: of the GPU among those that this process sees.
        runtime: `cuda.bindings.runtime`; another one in tests.

    Raises:
        BackendMissingError: cuda-bindings, a driver or that GPU is not there.
    """

    def __init__(self, index: int = 0, *, runtime: Any = None) -> None:
        self.index = index
        self._runtime = runtime or _import_runtime()
        self._success = self._runtime.cudaError_t.cudaSuccess
        status, count = self._runtime.cudaGetDeviceCount()
        if status != self._success or not count:
            reason = "" if status == self._success else f" ({self._reason(status)})"
            raise BackendMissingError(
                f"CUDA finds no GPU here{reason}; see `nvidia-smi`, or use an .onnx file on the CPU"
            )
        if index >= count:
            raise BackendMissingError(f"device cuda:{index} was asked for, there are {count} GPUs; see `nvidia-smi`")
        self.use()
        properties = self.call("cudaGetDeviceProperties", index)
        self.facts = GpuFacts(
            name=_text(properties.name),
            compute_capability=f"{properties.major}.{properties.minor}",
            pci_bus_id=_text(self.call("cudaDeviceGetPCIBusId", 32, index)),
        )

    def use(self) -> None:
        """Makes it the current device of the calling thread."""
        self.call("cudaSetDevice", self.index)

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls a function of the CUDA runtime and returns what it gives beside its status.

        Raises:
            EngineError: It failed; the message has CUDA's own.
        """
        status, *values = getattr(self._runtime, name)(*arguments)
        if status != self._success:
            raise EngineError(f"{name} failed on cuda:{self.index}: {self._reason(status)}{_advice(str(status))}")
        return values[0] if values else None

    def memory(self, size: int, *, scope: ExitStack) -> int:
        """Address of so many bytes on the device."""
        address = int(self.call("cudaMalloc", max(size, 1)))
        scope.callback(self._release, "cudaFree", address)
        return address

    def pinned(self, size: int, *, scope: ExitStack) -> NDArray[np.uint8]:
        """So many bytes of page-locked host memory. Not to be looked at after its scope has ended."""
        address = int(self.call("cudaMallocHost", max(size, 1)))
        scope.callback(self._release, "cudaFreeHost", address)
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))

    def stream(self, *, scope: ExitStack) -> Any:
        """A stream that does not wait for the default one."""
        found = self.call("cudaStreamCreateWithFlags", self._runtime.cudaStreamNonBlocking)
        scope.callback(self._release, "cudaStreamDestroy", found)
        return found

    def event(self, *, scope: ExitStack) -> Any:
        """An event that keeps its time."""
        found = self.call("cudaEventCreate")
        scope.callback(self._release, "cudaEventDestroy", found)
        return found

    def record(self, event: Any, stream: Any) -> None:
        """Notes when the stream comes to this place."""
        self.call("cudaEventRecord", event, stream)

    def wait(self, stream: Any, event: Any) -> None:
        """What the stream gets from now on starts when the event has come."""
        self.call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize(self, stream: Any) -> None:
        """Returns when the stream has done its work."""
        self.call("cudaStreamSynchronize", stream)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Time between two events that have come."""
        return float(self.call("cudaEventElapsedTime", start, end))

    def to_device(self, address: int, array: NDArray[np.uint8], stream: Any) -> None:
        """Starts to copy pinned memory to the device."""
        self.call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, self._kind("HostToDevice"), stream)

    def to_host(self, array: NDArray[np.uint8], address: int, stream: Any) -> None:
        """Starts to copy to pinned memory."""
        self.call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, self._kind("DeviceToHost"), stream)

    def capture(self, work: Callable[[], bool], stream: Any, *, scope: ExitStack) -> Any:
        """Records what `work` gives to the stream as a graph, without running it.

        Args:
            work: returns whether it could give its work.
            stream: which it gives it to.
            scope: how long the graph lives.

        Returns:
            The graph, for `launch`.

        Raises:
            EngineError: The work cannot be recorded; the stream is as it was before.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.call("cudaStreamBeginCapture", stream, mode)
        done = False
        try:
            done = work()
        finally:
            status, graph = self._runtime.cudaStreamEndCapture(stream)  # always: the stream would stay in the capture
            if status == self._success and not done:
                self._release("cudaGraphDestroy", graph)
        if status != self._success or not done:
            self._runtime.cudaGetLastError()  # takes the error off, which the next call would report as its own
            reason = self._reason(status) if status != self._success else "the engine refused"
            raise EngineError(f"the network cannot be recorded as a CUDA graph: {reason}")
        try:
            executable = self.call("cudaGraphInstantiate", graph, 0)
        finally:
            self._release("cudaGraphDestroy", graph)
        scope.callback(self._release, "cudaGraphExecDestroy", executable)
        return executable

    def launch(self, graph: Any, stream: Any) -> None:
        """Runs a graph."""
        self.call("cudaGraphLaunch", graph, stream)

    def _release(self, name: str, handle: Any) -> None:
        """Frees. A failure is no error of what is closed: the device is gone, or an earlier failure comes again."""
        with suppress(Exception):  # the interpreter may be half gone
            (status,) = getattr(self._runtime, name)(handle)
            if status != self._success:
                _log.debug("%s: %s", name, status)

    def _kind(self, name: str) -> Any:
        return getattr(self._runtime.cudaMemcpyKind, f"cudaMemcpy{name}")

    def _reason(self, status: Any) -> str:
        _, text = self._runtime.cudaGetErrorString(status)
        return f"{getattr(status, 'name', status)}, {_text(text)}"


def device_index(device: str) -> int:
    """Index of `cuda` or `cuda:N`; an engine runs on a GPU whatever is said, so `cpu` is the first one.

    Raises:
        ConfigError: It is none of these.
    """
    if device == "cpu":
        return 0
    if match := re.fullmatch(r"cuda(?::(\d+))?", device):
        return int(match[1] or 0)
    raise ConfigError(f"device must be cuda or cuda:N for an engine, got {device!r}")


def _import_runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise BackendMissingError("cuda-bindings is not installed: pip install 'ld-deploy[gpu]'") from error
    return runtime


def _text(value: bytes | str) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else value).rstrip("\0")


def _advice(status: str) -> str:
    return "; give it smaller batches, or free GPU memory (`nvidia-smi`)" if "MemoryAllocation" in status else ""
