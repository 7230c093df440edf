# ruff: noqa: N802 - the names are those of the library
"""A TensorRT in host memory: what the runtime calls of it. Its network finds one box an image: its first pixel."""

from __future__ import annotations

import ctypes
import json
from enum import Enum
from types import SimpleNamespace
from typing import Any

import numpy as np

from ld_runtime.tensorrt_library import OPS
from tests.runtime.fake_cuda import FakeRuntime

CONTENT = b"an engine"
MOST = 3  # max_detections
TYPES = {"images": "UINT8", "num_detections": "INT32", "boxes": "FLOAT", "scores": "FLOAT", "labels": "INT64"}
Strategy = Enum("Strategy", "STATIC USER_MANAGED")


class Context:
    def __init__(self, cuda: FakeRuntime, *, refuses_capture: bool) -> None:
        self.cuda, self.refuses_capture = cuda, refuses_capture
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self.memory = (0, 0)

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = (address, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return name == "images"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        rows = {"num_detections": (1,), "boxes": (MOST, 4), "scores": (MOST,), "labels": (MOST,)}
        return (self.shape[0], *rows[name])

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0 or name == "images" or address
        self.addresses[name] = address
        return name in TYPES

    def execute_async_v3(self, handle: int) -> bool:
        assert self.memory[0] in self.cuda.live
        assert self.memory[1] == Engine.device_memory_size_v2
        if self.refuses_capture and self.cuda.streams[handle].captured is not None:
            return False
        self.cuda.give(handle, self.work)
        return True

    def work(self) -> None:
        self.cuda.clock_ms += 5.0
        batch = self.shape[0]
        images = self.array("images", np.uint8, self.shape)
        for index in range(batch):
            pixel = images[index, 0, 0]
            self.array("num_detections", np.int32, (batch, 1))[index] = 1
            self.array("boxes", np.float32, (batch, MOST, 4))[index, 0] = (0, 0, pixel[0], pixel[1])
            self.array("scores", np.float32, (batch, MOST))[index, 0] = pixel[2] / 256
            self.array("labels", np.int64, (batch, MOST))[index] = (2, -1, -1)

    def array(self, name: str, dtype: Any, shape: tuple[int, ...]) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)


class Engine:
    device_memory_size_v2 = 1000
    num_io_tensors = len(TYPES)

    def __init__(self, library: FakeTensorRt) -> None:
        self.library = library
        self.types = dict(library.types)

    def get_tensor_name(self, index: int) -> str:
        return list(TYPES)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.types[name])

    def create_execution_context(self, settings: Any) -> Context | None:
        self.library.contexts += 1
        assert settings is Strategy.USER_MANAGED or settings is self.library.config
        return Context(self.library.cuda, refuses_capture=self.library.refuses_capture)

    def create_runtime_config(self) -> Any:
        def create() -> Cache:
            self.library.cache = Cache()
            return self.library.cache

        def use(strategy: Strategy) -> None:
            assert strategy is Strategy.USER_MANAGED

        self.library.config = SimpleNamespace(
            create_runtime_cache=create,
            set_runtime_cache=lambda cache: cache is self.library.cache,
            set_execution_context_allocation_strategy=use,
        )
        return self.library.config

    def create_engine_inspector(self) -> Any:
        tensor = {"Name": "a", "Format/Datatype": "Half"}
        words = json.dumps({"Layers": [{"Inputs": [tensor], "Outputs": []}]})
        return SimpleNamespace(get_engine_information=lambda _format: words)


class Cache:
    def __init__(self) -> None:
        self.content = b"compiled"

    def deserialize(self, content: bytes) -> bool:
        return content == b"compiled"

    def serialize(self) -> bytes:
        return self.content


class FakeTensorRt:
    """The module: `tensorrt` or `tensorrt_rtx`."""

    __name__ = "tensorrt"
    ILogger = type("ILogger", (), {"Severity": SimpleNamespace(ERROR=1, INTERNAL_ERROR=2), "__init__": lambda _: None})
    ExecutionContextAllocationStrategy = Strategy
    CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")
    LayerInformationFormat = SimpleNamespace(JSON="json")

    def __init__(self, cuda: FakeRuntime, *, version: str = "11.4.0.106", refuses_capture: bool = False) -> None:
        self.cuda, self.__version__, self.refuses_capture = cuda, version, refuses_capture
        self.types = dict(TYPES)
        self.contexts = 0
        self.creators: set[str] = set()
        self.loads: list[str] = []
        self.config: Any = None
        self.runtime: Any = None
        self.cache: Any = None

    def Runtime(self, _logger: Any) -> Any:
        def deserialize(content: bytes) -> Engine | None:
            return Engine(self) if content == CONTENT else None

        self.runtime = SimpleNamespace(deserialize_cuda_engine=deserialize, engine_host_code_allowed=False)
        return self.runtime

    def get_plugin_registry(self) -> Any:
        def load(path: str) -> None:
            self.loads.append(path)
            self.creators |= set(OPS) if "good" in path or "trt" in path else set()

        def creator(op: str, version: str, namespace: str) -> object | None:
            return object() if op in self.creators and (version, namespace) == ("1", "ld_deploy") else None

        return SimpleNamespace(load_library=load, get_creator=creator)
