"""ONNX files on OpenVINO, CPU. The only module that names openvino."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.engines import EngineFacts, EngineOutput
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError
from ld_runtime.host_tail import HostTail, check_images
from ld_runtime.onnx_file import INPUT, OUTPUTS, map_file, read_card
from ld_runtime.precision_proof import PrecisionProof, TypeShares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.engines import Arithmetic, NmsPlace

# Shapes that are compiled each for itself, which is up to 1.6 times as fast; further ones share a dynamic network.
OWN_SHAPES = 16
_HINTS = {"fp32": "f32", "bf16": "bf16"}
# OpenVINO's words for a compiled network.
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}
_WEIGHTED = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_NOT_COMPUTED = {"Const", "Input", "Output", "Reorder", "Reshape", "Transpose"}


class OpenVinoEngine:
    """An ONNX file from `ld-deploy export`, compiled by OpenVINO for the CPU.

    A shape is compiled when it is met for the first time, which takes a fraction of a second to seconds.

    Args:
        path: the file.
        device: `cpu`.
        threads: CPU threads of one run; None takes every core.
        precision: what a float32 layer is computed in; None is fp32. OpenVINO's own choice would be bf16 where the
            processor has it.
        nms: `native` computes what follows the network in our host library; `graph` in OpenVINO, from the functions in
            the file, for which the onnx package is needed. None: `native` where that library was built, else `graph`.

    Raises:
        EngineError: There is no such file, it is damaged, or OpenVINO cannot read it.
        ModelCardError: It carries no readable model card.
        BackendMissingError: openvino, the host library or the onnx package is not there, or the processor has no bf16.
        ConfigError: Settings that do not go together.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        device: str = "cpu",
        threads: int | None = None,
        precision: Arithmetic | None = None,
        nms: NmsPlace | None = None,
    ) -> None:
        self.path = Path(path)
        if device != "cpu":
            raise ConfigError(f"openvino runs on device cpu here, got {device!r}: use backend onnxruntime for {device}")
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be 1 or more, or None for every core, got {threads}")
        mapped = map_file(self.path)
        self.card = read_card(mapped, path=self.path)
        openvino = _import_openvino()
        content, self._tail = HostTail.take(mapped, card=self.card, nms=nms, on_cpu=True)
        if self._tail is None:
            if precision == "bf16":
                message = "bf16 would reach the decode and the NMS in the graph and move boxes by hundreds of pixels"
                raise ConfigError(f"{message}: take nms=native (`ld-deploy doctor` says how to build it)")
            content = _without_functions(content)
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision or "fp32"],
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self._tail is None:
            # Fused elementwise operators of decode and NMS need more registers than AVX2 has (seen in 2026.4).
            self._settings["SNIPPETS_MODE"] = "DISABLE"
        if threads is not None:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        if precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BackendMissingError("this processor has no bfloat16 (avx512_bf16 or amx_bf16): use precision fp32")
        try:
            self._model = self._core.read_model(content)
        except RuntimeError as error:
            message = f"{path} is damaged or no ONNX file that this openvino {openvino.__version__} reads"
            raise EngineError(f"{message} ({_reason(error)}): export it again") from error
        self._check_contract()
        self._requests: dict[tuple[int, ...], Any] = {}
        self.facts = EngineFacts(
            backend="openvino",
            version=openvino.__version__.partition("-")[0],
            device=device,
            precision="bf16" if precision == "bf16" else self.card.precision,
            nms="native" if self._tail else "graph",
        )

    def run(self, images: NDArray[np.uint8]) -> EngineOutput:
        """Runs a batch and returns when its outputs are in host memory.

        Args:
            images: uint8 (N, H, W, 3), BGR canvases.

        Raises:
            InputError: The array has another type or rank, or no image in it.
            EngineError: The file does not take this size, or running it failed.
        """
        outputs = self._views(images)
        if self._tail:
            return self._tail.run(outputs)
        count, boxes, scores, labels = (np.array(one) for one in outputs)
        return EngineOutput(num_detections=count.reshape(-1), boxes=boxes, scores=scores, labels=labels)

    def host_tail(self) -> HostTail | None:
        """What is computed behind the network by the host library; None where the whole file runs in OpenVINO."""
        return self._tail

    def network_outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """What the network gives, in the order of the tail's inputs, or of the file's outputs where there is no tail.

        Raises:
            InputError: As for `run`.
            EngineError: As for `run`.
        """
        return [np.array(one) for one in self._views(images)]

    def _views(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """The outputs, as views of the request's memory until its next run."""
        check_images(images)
        names = self._tail.inputs if self._tail else OUTPUTS
        try:
            results = self._request(images.shape).infer({INPUT: images}, share_inputs=True, share_outputs=True)
            return [results[name] for name in names]
        except RuntimeError as error:
            wanted = self._model.input(INPUT).partial_shape
            message = f"{self.path} could not run on {images.shape}; its input is {wanted}"
            raise EngineError(f"{message} ({_reason(error)})") from error

    def precision_proof(self) -> PrecisionProof:
        """What the compiled network computes in, by OpenVINO's own account of it."""
        if not self._requests:
            self._request(())
        compiled = next(reversed(self._requests.values())).get_compiled_model()
        found = []
        for operation in compiled.get_runtime_model().get_ops():
            info = operation.get_rt_info()
            kind, precision = (info[key].astype(str) for key in ("layerType", "runtimePrecision"))
            if kind not in _NOT_COMPUTED and precision in _PRECISIONS:
                found.append((kind, _PRECISIONS[precision]))
        weighted = [precision for kind, precision in found if kind in _WEIGHTED]
        shares = TypeShares.of(layers=weighted, tensors=[precision for _, precision in found])
        return PrecisionProof(engine=shares)

    def _request(self, shape: tuple[int, ...]) -> Any:
        """The request for canvases of a shape, compiled when it is met for the first time."""
        own = len(self._requests) < OWN_SHAPES
        key = shape if own or shape in self._requests else ()
        if key not in self._requests:
            model = self._model
            if key:
                model = model.clone()
                model.reshape({INPUT: list(shape)})
            self._requests[key] = self._core.compile_model(model, "CPU", self._settings).create_infer_request()
        return self._requests[key]

    def _check_contract(self) -> None:
        names = {name for output in self._model.outputs for name in output.get_names()}
        wanted = self._tail.inputs if self._tail else OUTPUTS
        if self.card.nms_kind != "none" and set(wanted) - names:
            message = f"{self.path} needs the outputs {', '.join(wanted)}, it has {sorted(names)}"
            raise EngineError(f"{message}: make it with `ld-deploy export CONFIG CHECKPOINT -o {self.path.name}`")


def _without_functions(content: bytes) -> bytes:
    """OpenVINO reads no model-local functions: they are expanded."""
    try:
        import onnx
        import onnx.inliner
    except ImportError as error:
        message = "with the NMS in the graph, openvino needs the onnx package: pip install onnx"
        raise BackendMissingError(f"{message}, or build the host library (`ld-deploy doctor`)") from error
    return bytes(onnx.inliner.inline_local_functions(onnx.load_from_string(content)).SerializeToString())


def _import_openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendMissingError("openvino is not installed: pip install 'ld-deploy[openvino]'") from error
    return openvino


def _reason(error: Exception) -> str:
    """The last line of an openvino message, of bounded length."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
