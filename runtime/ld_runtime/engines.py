"""What runs a model file: one protocol, and the choice by the file's suffix."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ld_runtime.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ld_runtime.model_card import ModelCard


@dataclass(frozen=True, eq=False)
class EngineOutput:
    """Detections of a batch as the model file gives them: padded to D = `max_detections` rows, in host memory.

    Args:
        num_detections: int32 (N,), how many rows of each image are detections.
        boxes: float32 (N, D, 4), x1 y1 x2 y2 in pixels of the canvas.
        scores: float32 (N, D), descending; 0 in the padding.
        labels: int64 (N, D); -1 in the padding.
    """

    num_detections: NDArray[np.int32]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


class Engine(Protocol):
    """A loaded model file. Not promised to be thread-safe: one per thread."""

    @property
    def card(self) -> ModelCard:
        """The model card that the file carries."""

    def run(self, images: NDArray[np.uint8]) -> EngineOutput:
        """Runs a batch and returns when its outputs are in host memory.

        Args:
            images: uint8 (N, H, W, 3), BGR canvases.
        """


def open_engine(path: str | Path, *, device: str = "cpu", threads: int | None = None) -> Engine:
    """Loads a model file with the engine that its suffix names.

    Args:
        path: an `.onnx` file from `ld-deploy export`.
        device: `cpu`, `cuda` or `cuda:N`.
        threads: CPU threads of one run; None leaves it to the engine, which takes every core.

    Raises:
        EngineError: No engine reads such a file, or it cannot be loaded.
        BackendMissingError: The engine's library or the device is not there.
        ModelCardError: The file carries no readable model card.
    """
    path = Path(path)
    if path.suffix.lower() == ".onnx":
        from ld_runtime.onnxruntime_engine import OnnxRuntimeEngine

        return OnnxRuntimeEngine(path, device=device, threads=threads)
    message = f"no engine runs {path.name}: supported are .onnx files (ONNX Runtime), got suffix {path.suffix!r}"
    raise EngineError(f"{message}; make one with `ld-deploy export CONFIG CHECKPOINT -o {path.stem}.onnx`")
