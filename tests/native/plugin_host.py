"""A plugin without TensorRT and without a GPU: its own code and the emulated kernels, called as TensorRT calls them."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.gpu.machines import EMULATION, NATIVE, Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FLOAT16_FIELD, FLOAT32_FIELD, FLOAT64_FIELD, INT32_FIELD = 0, 1, 2, 5  # nvinfer1::PluginFieldType
TYPES = {"float32": 0, "float16": 1, "int32": 3, "int64": 8}  # nvinfer1::DataType
LINEAR, CHW2 = 0, 1  # nvinfer1::TensorFormat


class Field(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("data", ctypes.c_void_p),
        ("type", ctypes.c_int32),
        ("length", ctypes.c_int32),
    )


class Fields(ctypes.Structure):
    _fields_ = (("count", ctypes.c_int32), ("fields", ctypes.POINTER(Field)))


class Dims(ctypes.Structure):
    _fields_ = (("rank", ctypes.c_int32), ("sizes", ctypes.c_int64 * 8))

    @classmethod
    def of(cls, shape: Sequence[int]) -> Dims:
        return cls(len(shape), (ctypes.c_int64 * 8)(*shape))

    def shape(self) -> tuple[int, ...]:
        return tuple(self.sizes[: self.rank])


class TensorDesc(ctypes.Structure):
    _fields_ = (
        ("dims", Dims),
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("scale", ctypes.c_float),
    )


@dataclass(frozen=True)
class Attribute:
    """One field, with its values as TensorRT hands them over."""

    name: str
    type: int
    values: tuple[float, ...]


def build_probe(headers: Path, folder: Path) -> Path:
    """The plugin against these headers, with checks of undefined behaviour."""
    path = folder / "libprobe.so"
    sources = [
        Path(__file__).with_name("plugin_probe.cpp"),
        EMULATION / "entry_points.cpp",
        *sorted((NATIVE / "tensorrt").glob("*.cpp")),
        *sorted((NATIVE / "cuda").glob("*.cu")),
    ]
    flags = [
        *("-x", "c++", "-std=c++17", "-O1", "-fPIC", "-shared", "-ffp-contract=off", "-fvisibility=hidden"),
        *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
        *("-fsanitize=undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all", "-static-libubsan"),
        *("-I", EMULATION, "-I", NATIVE / "include", "-isystem", headers),
    ]
    command = [shutil.which("g++") or "c++", *flags, *sources, "-o", path]
    subprocess.run([str(one) for one in command], check=True)
    return path


class PluginHost:
    """The functions of plugin_probe.cpp."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        pointer = ctypes.c_void_p
        for name in ("creator", "create", "clone", "attach"):
            self._declare(name, pointer)
        for name in ("names", "log", "timing_cache_id"):
            self._declare(name, ctypes.c_char_p)
        for name in ("fields", "serialized"):
            self._declare(name, ctypes.POINTER(Fields))
        self._declare("workspace", ctypes.c_size_t)

    def _declare(self, name: str, result: Any) -> None:
        getattr(self.library, f"probe_{name}").restype = result

    @property
    def version(self) -> tuple[int, int]:
        return divmod(self.library.probe_version(), 100)

    def log(self) -> str:
        """What was logged since the last call."""
        text: bytes = self.library.probe_log()
        return text.decode()

    def creator(self, op: str) -> ctypes.c_void_p | None:
        found = self.library.probe_creator(op.encode())
        return ctypes.c_void_p(found) if found else None

    def advertised(self, op: str) -> list[tuple[str, int]]:
        fields = self.library.probe_fields(self.creator(op)).contents
        return [(field.name.decode(), field.type) for field in fields.fields[: fields.count]]

    def create(self, op: str, attributes: Sequence[Attribute], *, at_runtime: bool = False) -> Plugin | None:
        """The plugin, or None: see `log`."""
        held = [_packed(one) for one in attributes]
        fields = (Field * len(held))(
            *(
                Field(one.name.encode(), array.ctypes.data if array.size else None, one.type, array.size)
                for one, array in zip(attributes, held, strict=True)
            )
        )
        found = self.library.probe_create(self.creator(op), ctypes.byref(Fields(len(held), fields)), int(at_runtime))
        return Plugin(self, found) if found else None


def _packed(one: Attribute) -> NDArray[Any]:
    dtypes = {FLOAT16_FIELD: np.float16, FLOAT32_FIELD: np.float32, FLOAT64_FIELD: np.float64, INT32_FIELD: np.int32}
    return np.array(one.values, dtypes[one.type])


class Plugin:
    """One plugin, called as TensorRT does."""

    def __init__(self, host: PluginHost, pointer: int) -> None:
        self._host = host
        self._pointer = ctypes.c_void_p(pointer)

    def __del__(self) -> None:
        self._host.library.probe_delete(self._pointer)

    def call(self, name: str, *arguments: Any) -> Any:
        return getattr(self._host.library, f"probe_{name}")(self._pointer, *arguments)

    def names(self) -> str:
        text: bytes = self._host.library.probe_names(None, self._pointer)
        return text.decode()

    def copy(self, how: str) -> Plugin:
        """By `clone` or `attach`."""
        return Plugin(self._host, self.call(how))

    def timing_cache_id(self) -> str:
        text: bytes = self.call("timing_cache_id")
        return text.decode()

    def output_types(self, inputs: Sequence[str]) -> list[int]:
        types = (ctypes.c_int32 * len(inputs))(*(TYPES[one] for one in inputs))
        outputs = (ctypes.c_int32 * 4)()
        assert self.call("output_types", types, len(inputs), outputs) == 0
        return list(outputs)

    def output_shapes(self, *inputs: Sequence[int]) -> list[tuple[int, ...]]:
        outputs = (Dims * 4)()
        assert self.call("output_shapes", (Dims * len(inputs))(*map(Dims.of, inputs)), len(inputs), outputs) == 0
        return [one.shape() for one in outputs]

    def supports(self, position: int, tensors: Sequence[tuple[str, int]], *, inputs: int) -> bool:
        """Tensors are inputs, then outputs: type and format."""
        descs = [TensorDesc(Dims.of(()), TYPES[name], form, 1.0) for name, form in tensors]
        array = (TensorDesc * len(descs))(*descs)
        return bool(self.call("supports", position, array, inputs, len(tensors) - inputs))

    def of_shapes(self, name: str, *shapes: Sequence[int]) -> int:
        """`configure`, `workspace` or `on_shape_change`."""
        return int(self.call(name, descs_of(*((shape, "float32") for shape in shapes)), len(shapes)))

    def serialized(self) -> list[Attribute]:
        fields = self.call("serialized").contents
        found = []
        for field in fields.fields[: fields.count]:
            kind = np.dtype(np.float32 if field.type == FLOAT32_FIELD else np.int32)
            data = ctypes.string_at(field.data, field.length * kind.itemsize)
            values = tuple(np.frombuffer(data, kind).tolist())
            found.append(Attribute(field.name.decode(), field.type, values))
        return found

    def enqueue(self, *inputs: NDArray[Any], most: int, numbers: int = 4) -> Found:
        """Runs on the host, boxes of so many numbers; the workspace is what the plugin asks for these inputs."""
        descs = descs_of(*((one.shape, str(one.dtype)) for one in inputs))
        batch = len(inputs[0])
        workspace = np.full(self.call("workspace", descs, len(inputs)), 0xA5, np.uint8)
        found = Found(
            np.full(batch, -7, np.int32),
            np.full((batch, most, numbers), np.nan, np.float32),
            np.full((batch, most), np.nan, np.float32),
            np.full((batch, most), -7, np.int64),
        )
        pointers = [(ctypes.c_void_p * len(kind))(*(one.ctypes.data for one in kind)) for kind in (inputs, found)]
        assert self.call("enqueue", descs, *pointers, ctypes.c_void_p(workspace.ctypes.data)) == 0
        return found


def descs_of(*tensors: tuple[Sequence[int], str]) -> Any:
    return (TensorDesc * len(tensors))(
        *(TensorDesc(Dims.of(shape), TYPES[kind], LINEAR, 1.0) for shape, kind in tensors)
    )
