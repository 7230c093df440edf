"""One input shape of an engine: its execution context, where its tensors lie, and its CUDA graph."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import EngineError
from ld_runtime.onnx_file import INPUT
from ld_runtime.shape_buckets import Block

if TYPE_CHECKING:
    from collections.abc import Callable

    from ld_runtime.cuda_device import CudaDevice

OUTPUT_TYPES = {"num_detections": np.int32, "boxes": np.float32, "scores": np.float32, "labels": np.int64}

_log = logging.getLogger(__name__)


def output_shapes(batch: int, max_detections: int, *, sides: int = 4) -> dict[str, tuple[int, ...]]:
    """Shapes of the outputs by the contract, with boxes of `sides` numbers."""
    return {
        "num_detections": (batch, 1),
        "boxes": (batch, max_detections, sides),
        "scores": (batch, max_detections),
        "labels": (batch, max_detections),
    }


@dataclass(frozen=True)
class DeviceMemory:
    """Addresses on the device that all shapes of an engine share: one of them runs at a time.

    Args:
        input: of the canvases.
        output: of the block of all outputs.
        output_size: of that block in bytes.
        scratch: of what lies between the layers.
        scratch_size: in bytes.
    """

    input: int
    output: int
    output_size: int
    scratch: int
    scratch_size: int


class ShapeContext:
    """An engine at one input shape.

    Args:
        new_context: makes an execution context that is given its memory.
        shape: uint8 (N, H, W, 3) of the canvases.
        memory: which it works in.
        cuda: the GPU.
        graph: whether to replay a CUDA graph.

    Raises:
        EngineError: The engine does not take the shape, or its outputs are of another contract.
    """

    def __init__(
        self,
        new_context: Callable[[], Any],
        shape: tuple[int, ...],
        *,
        memory: DeviceMemory,
        cuda: CudaDevice,
        graph: bool,
    ) -> None:
        self._scope = ExitStack()
        self._cuda, self._shape, self._wants_graph = cuda, shape, graph
        self._graph: Any = None
        self._context = new_context()
        if self._context is None:
            raise EngineError("the library makes no further execution context: GPU memory may be short (`nvidia-smi`)")
        if memory.scratch_size:
            self._context.set_device_memory(memory.scratch, memory.scratch_size)
        if not self._context.set_input_shape(INPUT, shape):
            raise EngineError(f"the engine refuses images of shape {shape}")
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in OUTPUT_TYPES}
        self.block = Block.of(shapes, OUTPUT_TYPES)
        unknown = any(side < 0 for one in shapes.values() for side in one)
        if unknown or self.block.size > memory.output_size:
            raise EngineError(f"outputs of fixed size are needed, the engine has {shapes}: export the model again")
        addresses = {name: memory.output + offset for name, offset in self.block.offsets.items()}
        for name, address in {INPUT: memory.input, **addresses}.items():
            if not self._context.set_tensor_address(name, address):
                raise EngineError(f"the engine has no tensor `{name}`: build it again with `ld-deploy build`")

    @property
    def has_graph(self) -> bool:
        """Whether the next run replays a graph."""
        return self._graph is not None

    def enqueue(self, stream: Any) -> None:
        """Gives the network to a stream: as a graph from the second run on.

        Raises:
            EngineError: The library does not take it.
        """
        if self._graph is not None:
            self._cuda.launch(self._graph, stream)
        elif not self._execute(stream):
            raise EngineError(f"the engine could not be run on images of shape {self._shape}")

    def record(self, stream: Any) -> None:
        """Records the graph, once; to be called after the first run, which prepares what a graph cannot hold.

        A network that cannot be recorded goes on without, and the log says so.
        """
        if not self._wants_graph:
            return
        self._wants_graph = False
        try:
            self._graph = self._cuda.capture(lambda: self._execute(stream), stream, scope=self._scope)
        except EngineError as error:
            _log.warning("images of shape %s run without a CUDA graph: %s", self._shape, error)

    def close(self) -> None:
        """Frees graph and context. Nothing of it may be running."""
        self._graph = None
        self._scope.close()
        self._context = None

    def _execute(self, stream: Any) -> bool:
        return bool(self._context.execute_async_v3(int(stream)))
