"""Engines of `ld-deploy build` on a GPU: TensorRT and TensorRT-RTX.

The canvases go through pinned memory to the device, the network runs, and all outputs come back in one copy; each of
the three has a stream of its own, with events between them. TensorRT replays a CUDA graph for each input shape;
TensorRT-RTX keeps such graphs itself.
"""

from __future__ import annotations

import hashlib
import logging
import math
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.cuda_device import CudaDevice, device_index
from ld_runtime.engine_file import check_place, read_engine
from ld_runtime.engines import EngineFacts, EngineOutput
from ld_runtime.errors import ConfigError, EngineError
from ld_runtime.host_tail import check_images
from ld_runtime.model_card import SIDES
from ld_runtime.onnx_file import INPUT
from ld_runtime.precision_proof import PrecisionProof, TypeShares
from ld_runtime.rtx_cache import RuntimeCache
from ld_runtime.shape_buckets import Block, ShapeBuckets
from ld_runtime.tensorrt_context import OUTPUT_TYPES, DeviceMemory, ShapeContext, output_shapes
from ld_runtime.tensorrt_library import collecting_logger, deserialize, find_plugin, import_library, load_plugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from numpy.typing import NDArray

MOST_SHAPES = 32  # that are kept ready; a further one takes the place of the one used longest ago
_LIBRARY_TYPES = {"INT32": np.int32, "INT64": np.int64, "FLOAT": np.float32, "UINT8": np.uint8}

_log = logging.getLogger(__name__)


class TensorRtEngine:
    """An engine of `ld-deploy build`, opened on a GPU by what the JSON beside it says.

    The first run of a shape is slower: it is prepared and recorded. What cannot be recorded runs without a graph, and
    the log says so. Not thread-safe: one per thread. `close` or a `with` block frees the GPU's memory.

    Args:
        path: the engine.
        device: `cuda` or `cuda:N`; `cpu`, which is the default of `Detector`, is the first GPU.
        backend: None takes what the JSON says; another library is an error.
        cuda: the GPU, where it is already open; None opens `device`.

    Raises:
        EngineError: The engine or its JSON is not there or damaged, was built for another version of the library or
            another GPU, or is of another contract; the message has the command that builds it again.
        BackendMissingError: The library, cuda-bindings, the plugin or the GPU is not there.
        ModelCardError: The JSON carries no readable model card.
        ConfigError: `device` is none of these.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cpu",
        backend: str | None = None,
        cuda: CudaDevice | None = None,
    ) -> None:
        self.path = Path(path)
        index = device_index(device)
        content, self.record = read_engine(self.path)
        if backend not in (None, self.record.backend):
            raise ConfigError(f"{path} was built with {self.record.backend}, and {backend} was asked for: leave it out")
        self.card = self.record.card
        self._library = import_library(self.record.backend)
        self._cuda = cuda or CudaDevice(index)
        self.first_inference_ms: float | None = None
        self._closed = False
        with ExitStack() as scope:
            self._open(content, scope)
            self._scope = scope.pop_all()
        self.facts = EngineFacts(
            backend=self.record.backend,
            version=self._library.__version__,
            device=f"cuda:{index}",
            precision=self.record.precision,
            nms="plugin" if self.record.nms == "plugin" else "graph",
        )

    def _open(self, content: bytes, scope: ExitStack) -> None:
        record, library, cuda = self.record, self._library, self._cuda
        here = cuda.facts.compute_capability
        check_place(record, self.path, version=library.__version__, compute_capability=here)
        serialized = record.plugin is not None and record.plugin.serialized
        if record.plugin is not None and not serialized:
            plugin = find_plugin(library)
            if hashlib.sha256(plugin.read_bytes()).hexdigest() != record.plugin.sha256:
                _log.warning("%s is another build than the one that %s was built with", plugin, self.path)
            load_plugin(library, plugin, backend=record.backend)
        cuda.use()
        self._logger = collecting_logger(library)
        try:
            self._runtime, engine = deserialize(library, content, logger=self._logger, host_code=serialized)
        except EngineError as error:
            raise EngineError(f"{self.path}: {error}; build it again: {record.rebuild_command(self.path)}") from error
        self._engine = engine
        self._check_contract()

        largest_input = math.prod(record.profile.max)
        most, sides = record.card.nms.max_detections, SIDES[record.card.box_format]
        largest = Block.of(output_shapes(record.profile.max[0], most, sides=sides), OUTPUT_TYPES)
        self._streams = [cuda.stream(scope=scope) for _ in range(3)]
        self._events = [cuda.event(scope=scope) for _ in range(5)]
        self._staging = cuda.pinned(largest_input, scope=scope)
        self._received = cuda.pinned(largest.size, scope=scope)
        self._memory = DeviceMemory(
            input=cuda.memory(largest_input, scope=scope),
            output=cuda.memory(largest.size, scope=scope),
            output_size=largest.size,
            scratch=cuda.memory(engine.device_memory_size_v2, scope=scope),
            scratch_size=engine.device_memory_size_v2,
        )
        self._cache: RuntimeCache | None = None
        if record.backend == "tensorrt-rtx":
            path = self.path.with_name(f"{self.path.name}.cache")
            self._cache = RuntimeCache(engine, library=library, path=path)
        elif record.nms == "function":
            _log.warning(
                "%s holds the NMS as a loop, which no CUDA graph can hold: it runs without; one that can is made by %s",
                self.path,
                record.rebuild_command(self.path, with_plugin=True),
            )
        self._buckets = ShapeBuckets(self._maker(), most=MOST_SHAPES)
        scope.callback(self._buckets.close)

    def run(self, images: NDArray[np.uint8]) -> EngineOutput:
        """Runs a batch and returns when its outputs are in host memory.

        Args:
            images: uint8 (N, H, W, 3), BGR canvases.

        Raises:
            InputError: The array has another type or rank, or no image in it.
            EngineError: The engine was not built for this size, was closed, or running it failed.
        """
        check_images(images)
        if self._closed:
            raise EngineError(f"{self.path} was closed: open it again")
        if not self.record.profile.holds(images.shape):
            message = f"{self.path} was built for images {self.record.profile}, got {images.shape}"
            raise EngineError(f"{message}; build it for more with --batch, --min-hw and --max-hw of `ld-deploy build`")
        start = perf_counter()
        cuda = self._cuda
        cuda.use()  # of this thread, which may be another than the one that opened it
        context = self._buckets.get(images.shape)
        upload, compute, download = self._streams
        began, there, starts, ends, done = self._events
        size = images[0].size
        try:
            for index, image in enumerate(images):  # while one is copied to the device, the next one is staged
                staged = self._staging[index * size : (index + 1) * size]
                np.copyto(staged.reshape(image.shape), image)
                if index == 0:
                    cuda.record(began, upload)
                cuda.to_device(self._memory.input + index * size, staged, upload)
            cuda.record(there, upload)
            cuda.wait(compute, there)
            cuda.record(starts, compute)
            context.enqueue(compute)
            cuda.record(ends, compute)
            cuda.wait(download, ends)
            cuda.to_host(self._received[: context.block.size], self._memory.output, download)
            cuda.record(done, download)
        except EngineError as error:
            raise EngineError(f"{self.path}: {error} {self._logger.summary()}".rstrip()) from error
        finally:
            for stream in self._streams:  # also after a failure: nothing may still use memory that is used again
                cuda.synchronize(stream)
        found = context.block.copies(self._received)
        if self.first_inference_ms is None:
            self.first_inference_ms = (perf_counter() - start) * 1000
            if self._cache is not None:
                self._cache.save()
        context.record(compute)
        self._last = context
        return EngineOutput(
            num_detections=found["num_detections"].reshape(-1),
            boxes=found["boxes"],
            scores=found["scores"],
            labels=found["labels"],
        )

    def device_spans(self) -> dict[str, float]:
        """Times of the last run in ms, by the GPU's events.

        Returns:
            `network`: the network with its NMS alone, as the replay of a graph where there is one. `device`: from the
            first byte of a canvas on its way to the device to the last byte of the outputs that is back.

        Raises:
            EngineError: Nothing has run yet.
        """
        if self.first_inference_ms is None:
            raise EngineError(f"{self.path} has not run yet, so there are no times of it")
        began, _, starts, ends, done = self._events
        return {"network": self._cuda.elapsed_ms(starts, ends), "device": self._cuda.elapsed_ms(began, done)}

    def precision_proof(self) -> PrecisionProof:
        """What the file's JSON says of its precision; for TensorRT-RTX also what its inspector says on this GPU."""
        proof = self.record.precision_proof
        if proof.engine is not None:
            return proof
        words = self._engine.create_engine_inspector().get_engine_information(self._library.LayerInformationFormat.JSON)
        try:
            return PrecisionProof(graph=proof.graph, engine=TypeShares.from_inspector(words))
        except EngineError as error:
            return PrecisionProof(graph=proof.graph, remark=str(error))

    def details(self) -> dict[str, str | int | float]:
        """What a benchmark says beside the times: the GPU, whether a graph is replayed, how long the first run took."""
        graph = "by the library" if self._cache is not None else "none"
        if self.first_inference_ms is not None and self._last.has_graph:
            graph = "replayed"
        found: dict[str, str | int | float] = {
            "gpu": self._cuda.facts.name,
            "compute_capability": self._cuda.facts.compute_capability,
            "cuda_graph": graph,
        }
        if self.first_inference_ms is not None:
            found["first_inference_ms"] = self.first_inference_ms
        return found

    def close(self) -> None:
        """Frees the GPU's memory. Closing twice does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._cache is not None and self.first_inference_ms is not None:
            self._cache.save()
        try:
            self._cuda.use()
        finally:
            self._scope.close()
            self._cache = self._engine = self._runtime = None

    def __enter__(self) -> TensorRtEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_scope") and not sys.is_finalizing():
            with suppress(Exception):  # nobody is there to be told
                self.close()

    def _maker(self) -> Callable[[tuple[int, ...]], ShapeContext]:
        """Makes the context of a shape. It does not hold this object, which is freed when nobody else does."""
        engine, memory, cuda = self._engine, self._memory, self._cuda
        graph = self._cache is None and self.record.nms != "function"
        settings = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._cache is not None:
            settings = self._cache.config

        def make(shape: tuple[int, ...]) -> ShapeContext:
            new = partial(engine.create_execution_context, settings)
            return ShapeContext(new, shape, memory=memory, cuda=cuda, graph=graph)

        return make

    def _check_contract(self) -> None:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        types = {name: _LIBRARY_TYPES.get(engine.get_tensor_dtype(name).name) for name in names}
        wanted = {INPUT: np.uint8, **OUTPUT_TYPES}
        if types != wanted:
            found = {name: engine.get_tensor_dtype(name).name for name in names}
            message = f"{self.path} needs the tensors {', '.join(wanted)} of the contract, it has {found}"
            raise EngineError(f"{message}: export the model with its NMS, and build it again")
