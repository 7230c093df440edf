# ruff: noqa: N802, N815 - the names are those of the library
"""A CUDA runtime in host memory, with the functions and return values of `cuda.bindings.runtime`.

Work is done at once, in the order in which it was given, but a stream that waits for an event which was not recorded is
an error, and so is memory that is freed twice, freed during a capture, or never. Time is a clock that work moves on.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from enum import Enum
from types import SimpleNamespace
from typing import Any


class Status(Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


OK = Status.cudaSuccess


@dataclass
class Stream:
    number: int
    captured: list[Any] | None = None

    def __int__(self) -> int:
        return self.number


@dataclass
class FakeRuntime:
    """One GPU.

    Args:
        fail: names of functions that fail, each with its status.
        log: what was called, in order.
    """

    devices: int = 1
    capability: tuple[int, int] = (8, 9)
    fail: dict[str, Status] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    clock_ms: float = 0.0
    live: dict[int, Any] = field(default_factory=dict)
    streams: dict[int, Stream] = field(default_factory=dict)
    handles: set[str] = field(default_factory=set)
    recorded: dict[str, float] = field(default_factory=dict)
    numbers: int = 0

    cudaError_t = Status
    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name.startswith("cuda") and callable(found) and not isinstance(found, type):
            if name != "cudaGetErrorString":
                self.log.append(name.removeprefix("cuda"))
            status = self.fail.get(name)
            if status is not None:
                return lambda *_: (status, None)
        return found

    @property
    def everything(self) -> int:
        """How many allocations, streams, events and graphs are alive."""
        return len(self.live) + len(self.streams) + len(self.handles)

    def cudaGetDeviceCount(self) -> Any:
        return OK, self.devices

    def cudaSetDevice(self, index: int) -> Any:
        assert 0 <= index < self.devices
        return (OK,)

    def cudaGetDeviceProperties(self, _index: int) -> Any:
        return OK, SimpleNamespace(name=b"Fake GPU\0", major=self.capability[0], minor=self.capability[1])

    def cudaDeviceGetPCIBusId(self, _length: int, index: int) -> Any:
        return OK, f"0000:0{index}:00.0\0".encode()

    def cudaGetErrorString(self, status: Status) -> Any:
        return OK, status.name.encode()

    def cudaGetLastError(self) -> Any:
        return (OK,)

    def cudaMalloc(self, size: int) -> Any:
        memory = ctypes.create_string_buffer(size)
        self.live[ctypes.addressof(memory)] = memory
        return OK, ctypes.addressof(memory)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address: int) -> Any:
        del self.live[address]
        return (OK,)

    cudaFreeHost = cudaFree

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == self.cudaStreamNonBlocking
        self.numbers += 1
        self.streams[self.numbers] = Stream(self.numbers)
        return OK, self.streams[self.numbers]

    def cudaStreamDestroy(self, stream: Stream) -> Any:
        del self.streams[stream.number]
        return (OK,)

    def cudaStreamSynchronize(self, stream: Stream) -> Any:
        assert stream.captured is None
        return (OK,)

    def cudaEventCreate(self) -> Any:
        return OK, self._handle("event")

    def cudaEventDestroy(self, event: str) -> Any:
        self.handles.remove(event)
        return (OK,)

    def cudaEventRecord(self, event: str, stream: Stream) -> Any:
        assert event in self.handles
        assert stream.number in self.streams
        self.recorded[event] = self.clock_ms
        return (OK,)

    def cudaStreamWaitEvent(self, _stream: Stream, event: str, flags: int) -> Any:
        assert event in self.recorded
        assert flags == 0
        return (OK,)

    def cudaEventElapsedTime(self, start: str, end: str) -> Any:
        return OK, self.recorded[end] - self.recorded[start]

    def cudaMemcpyAsync(self, target: int, source: int, size: int, _kind: int, stream: Stream) -> Any:
        assert stream.captured is None
        ctypes.memmove(target, source, size)
        self.clock_ms += 1.0
        return (OK,)

    def cudaStreamBeginCapture(self, stream: Stream, _mode: int) -> Any:
        assert stream.captured is None
        stream.captured = []
        return (OK,)

    def cudaStreamEndCapture(self, stream: Stream) -> Any:
        work, stream.captured = stream.captured, None
        assert work is not None
        graph = self._handle("graph")
        self.graphs = {**getattr(self, "graphs", {}), graph: work}
        return OK, graph

    def cudaGraphInstantiate(self, graph: str, flags: int) -> Any:
        assert flags == 0
        executable = self._handle("executable")
        self.graphs[executable] = self.graphs[graph]
        return OK, executable

    def cudaGraphDestroy(self, graph: str) -> Any:
        self.handles.remove(graph)
        return (OK,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, executable: str, _stream: Stream) -> Any:
        assert executable in self.handles
        for work in self.graphs[executable]:
            work()
        return (OK,)

    def give(self, handle: int, work: Any) -> None:
        """Work for a stream: done, or put into the graph that is recorded."""
        captured = self.streams[handle].captured
        if captured is None:
            work()
        else:
            captured.append(work)

    def _handle(self, kind: str) -> str:
        self.numbers += 1
        self.handles.add(f"{kind}{self.numbers}")
        return f"{kind}{self.numbers}"
