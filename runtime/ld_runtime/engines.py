"""What runs a model file: one protocol, and the choice by the file's suffix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args, runtime_checkable

from ld_runtime.errors import ConfigError, EngineError
from ld_runtime.nearest import nearest, nearest_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ld_runtime.host_tail import HostTail
    from ld_runtime.model_card import ModelCard

Backend = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
# What a float32 file is computed in, where the backend can choose: other precisions lie in the file.
Arithmetic = Literal["fp32", "bf16"]
IN_THE_FILE = ("fp16", "int8", "fp8")
# Where the NMS of an ONNX file is computed: by our library on the host, or by the runtime, from the function in it.
NmsPlace = Literal["native", "graph"]


@dataclass(frozen=True, eq=False)
class EngineOutput:
    """Detections of a batch as the model file gives them: padded to D = `max_detections` rows, in host memory.

    Args:
        num_detections: int32 (N,), how many rows of each image are detections.
        boxes: float32 (N, D, 4), x1 y1 x2 y2 in pixels of the canvas; of a rotated model (N, D, 5), cx cy w h angle.
        scores: float32 (N, D), descending; 0 in the padding.
        labels: int64 (N, D); -1 in the padding.
    """

    num_detections: NDArray[np.int32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class EngineFacts:
    """What runs the file, for a report.

    Args:
        backend: which library.
        version: of it.
        device: as it was asked for.
        precision: of the network: the file's own, or `bf16` where a float32 file is computed in it.
        nms: `native` (our host library), `graph` (the function in standard operators) or `plugin`.
    """

    backend: Backend
    version: str
    device: str
    precision: str
    nms: str


class Engine(Protocol):
    """A loaded model file. Not promised to be thread-safe: one per thread."""

    @property
    def card(self) -> ModelCard:
        """The model card that the file carries."""

    @property
    def facts(self) -> EngineFacts:
        """What runs it."""

    def run(self, images: NDArray[np.uint8]) -> EngineOutput:
        """Runs a batch and returns when its outputs are in host memory.

        Args:
            images: uint8 (N, H, W, 3), BGR canvases.
        """


@runtime_checkable
class Split(Protocol):
    """An engine whose network can be run without what follows it."""

    def host_tail(self) -> HostTail | None:
        """What follows the network, where the host library computes it."""

    def network_outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """What the network gives: with a tail, that tail's inputs in their order."""


@runtime_checkable
class DeviceTimed(Protocol):
    """An engine that can tell the times of its last run by the device's own clock."""

    def device_spans(self) -> Mapping[str, float]:
        """In ms: `network`, and `device` with the copies to and from the device."""

    def details(self) -> Mapping[str, str | int | float]:
        """What a report says beside the times."""


@dataclass(frozen=True)
class ModelSpec:
    """A model file and what is to run it, as the command line names them: `FILE[@BACKEND[:PRECISION]]`."""

    path: Path
    backend: Backend | None = None
    precision: Arithmetic | None = None

    @classmethod
    def parse(cls, text: str) -> ModelSpec:
        """Reads `student.onnx`, `student.onnx@openvino` or `student.onnx@openvino:bf16`.

        Raises:
            ConfigError: No such backend or precision.
        """
        file, at, rest = text.rpartition("@")
        if not at or Path(text).exists():
            return cls(Path(text))
        backend, _, precision = rest.partition(":")
        if backend not in get_args(Backend):
            known = ", ".join(get_args(Backend))
            guess = nearest(backend, get_args(Backend)) or ";"
            raise ConfigError(f"no backend is called {backend!r} in {text!r}{guess} there are {known}")
        if precision and precision not in get_args(Arithmetic):
            known = ", ".join(get_args(Arithmetic))
            message = f"a float32 file can be computed in {known}, got {precision!r} in {text!r}"
            # A precision that is real, and not the backend's to choose, is no slip of the finger.
            guess = "" if precision in IN_THE_FILE else nearest(precision, get_args(Arithmetic))
            way_out = "other precisions lie in the file: `ld-deploy convert`, `ld-deploy quantize`"
            raise ConfigError(f"{message}{guess or ';'} {way_out}")
        return cls(Path(file), backend, precision or None)  # type: ignore[arg-type]  # both were looked up

    @property
    def name(self) -> str:
        """File name, backend and precision, as far as they were named."""
        backend = f"@{self.backend}" if self.backend else ""
        return f"{self.path.name}{backend}{f':{self.precision}' if self.precision else ''}"

    def __str__(self) -> str:
        """The name behind the file's folder."""
        return str(self.path.parent / self.name)


def names_of(specs: Sequence[ModelSpec]) -> list[str]:
    """A name of each: without its folder where that tells them apart."""
    short = [spec.name for spec in specs]
    return short if len(set(short)) == len(short) else [str(spec) for spec in specs]


def open_engine(
    path: str | Path,
    *,
    device: str = "cpu",
    threads: int | None = None,
    backend: Backend | None = None,
    precision: Arithmetic | None = None,
    nms: NmsPlace | None = None,
) -> Engine:
    """Loads a model file.

    Args:
        path: an `.onnx` file of `ld-deploy export`, or an engine of `ld-deploy build`.
        device: `cpu`, `cuda` or `cuda:N`; engines run on `cuda` whatever is said.
        threads: CPU threads of one run; None leaves it to the engine, which takes every core.
        backend: None: ONNX Runtime for `.onnx`; for an engine what its JSON says.
        precision: of a float32 file: `bf16` has OpenVINO compute it in bfloat16, where the processor has it. None: as
            the file is.
        nms: where the NMS of an `.onnx` file is computed. None: on the CPU `native` where that library was built,
            `graph` otherwise and on a GPU.

    Raises:
        EngineError: No engine reads such a file, or it cannot be loaded.
        BackendMissingError: The engine's library or the device is not there.
        ModelCardError: The file carries no readable model card.
        ConfigError: Settings that do not go together.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".onnx" and backend in (None, "onnxruntime"):
        from ld_runtime.onnxruntime_engine import OnnxRuntimeEngine

        if precision not in (None, "fp32"):
            message = f"ONNX Runtime computes a file as it is and has no {precision} of its own"
            raise ConfigError(f"{message}: use backend openvino, or `ld-deploy convert --precision {precision}`")
        return _of_precision(OnnxRuntimeEngine(path, device=device, threads=threads, nms=nms), precision, path)
    if suffix == ".onnx" and backend == "openvino":
        from ld_runtime.openvino_engine import OpenVinoEngine

        engine = OpenVinoEngine(path, device=device, threads=threads, precision=precision, nms=nms)
        return _of_precision(engine, precision, path)
    if suffix == ".engine" and backend in (None, "tensorrt", "tensorrt-rtx"):
        from ld_runtime.tensorrt_engine import TensorRtEngine

        if precision is not None or nms is not None:
            message = f"an engine has precision and NMS in it, got precision={precision}, nms={nms}"
            raise ConfigError(f"{message}: build another with `ld-deploy build`")
        return TensorRtEngine(path, device=device, backend=backend)
    if guess := nearest_path(path):
        raise EngineError(f"there is no model file {path}{guess}")
    message = f"no engine runs {path.name} with backend {backend or 'by its suffix'}: .onnx and .engine files are known"
    build = f"`ld-deploy build {path.stem}.onnx -o {path.stem}.engine`"
    way_out = f"`ld-deploy export CONFIG CHECKPOINT -o {path.stem}.onnx`, then {build}"
    raise EngineError(f"{message}, got suffix {path.suffix!r}; make one with {way_out}")


def _of_precision(engine: Engine, asked: Arithmetic | None, path: Path) -> Engine:
    """The engine, when its file is float32 or nothing else was asked of it."""
    own = engine.card.precision
    if asked is not None and own != "fp32":
        message = f"{path} is {own} by its model card, and only an fp32 file is computed in {asked}"
        raise ConfigError(f"{message}: leave the precision out, or give the fp32 file that it was made from")
    return engine
