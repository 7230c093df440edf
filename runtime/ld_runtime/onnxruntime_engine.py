"""ONNX files on ONNX Runtime, CPU and CUDA. The only module that names onnxruntime."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.engines import EngineFacts, EngineOutput
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError
from ld_runtime.host_tail import HostTail, check_images
from ld_runtime.onnx_file import INPUT, OUTPUTS, map_file, read_card, with_uint8_activations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_runtime.engines import NmsPlace

_EXPORT = "`ld-deploy export CONFIG CHECKPOINT -o {name}`"
_FATAL_ONLY = 4  # every failure is raised here with its way out: onnxruntime's own lines would say it twice


class OnnxRuntimeEngine:
    """An ONNX file from `ld-deploy export`, loaded into ONNX Runtime.

    Args:
        path: the file.
        device: `cpu`, `cuda` or `cuda:N`. It is that or an error: onnxruntime's own fallback to the CPU is off.
        threads: CPU threads of one run; None takes every core.
        nms: `native` computes what follows the network in our host library, `graph` in ONNX Runtime. None: `native`
            on the CPU where that library was built, else `graph`.

    Raises:
        EngineError: There is no such file, it is damaged, or it is no ONNX file of this contract.
        ModelCardError: It carries no readable model card.
        BackendMissingError: onnxruntime, its CUDA provider or the host library is not there.
        ConfigError: `device` or `threads` is none of these.
    """

    def __init__(
        self, path: str | Path, *, device: str = "cpu", threads: int | None = None, nms: NmsPlace | None = None
    ) -> None:
        path = Path(path)
        provider, options = _provider(device)
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be 1 or more, or None for every core, got {threads}")
        mapped = map_file(path)
        self.card = read_card(mapped, path=path)
        onnxruntime = _import_onnxruntime()
        if provider not in onnxruntime.get_available_providers():
            raise BackendMissingError(
                f"device {device!r} needs onnxruntime's {provider}, and this onnxruntime has only "
                f"{', '.join(onnxruntime.get_available_providers())}: "
                "pip uninstall -y onnxruntime && pip install 'ld-deploy[onnxruntime-gpu]'"
            )

        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _FATAL_ONLY
        if threads is not None:
            settings.intra_op_num_threads = threads
        self.path = path
        content, self._tail = HostTail.take(mapped, card=self.card, nms=nms, on_cpu=device == "cpu")
        if device == "cpu":
            content = with_uint8_activations(content)
        # This rewriting takes a float8 encoding for one that holds no negative values, and drops the ReLU before it.
        disabled = ["ReluQuantRewrite"] if self.card.precision == "fp8" else []
        try:
            self._session = onnxruntime.InferenceSession(
                content, settings, providers=[(provider, options)], enable_fallback=0, disabled_optimizers=disabled
            )
        except _errors() as error:
            raise EngineError(
                f"{path} is damaged or no ONNX file that this onnxruntime {onnxruntime.__version__} reads "
                f"({_reason(error)}): copy it again, or make it with {_EXPORT.format(name=path.name)}"
            ) from error
        if self._session.get_providers()[0] != provider:
            raise BackendMissingError(
                f"device {device!r} was asked for, but onnxruntime could not start its {provider} and would run on "
                f"{self._session.get_providers()[0]}: check `nvidia-smi`, and that the CUDA libraries are there: "
                "pip install 'onnxruntime-gpu[cuda,cudnn]'"
            )
        self._check_contract()
        self.facts = EngineFacts(
            backend="onnxruntime",
            version=onnxruntime.__version__,
            device=device,
            precision=self.card.precision,
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
        outputs = self.network_outputs(images)
        if self._tail:
            return self._tail.run(outputs)
        count, boxes, scores, labels = outputs
        return EngineOutput(num_detections=count.reshape(-1), boxes=boxes, scores=scores, labels=labels)

    def host_tail(self) -> HostTail | None:
        """What is computed behind the network by the host library; None where the whole file runs in ONNX Runtime."""
        return self._tail

    def network_outputs(self, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
        """What the network gives, in the order of the tail's inputs, or of the file's outputs where there is no tail.

        Raises:
            InputError: As for `run`.
            EngineError: As for `run`.
        """
        check_images(images)
        names = self._tail.inputs if self._tail else OUTPUTS
        try:
            return list(self._session.run(names, {INPUT: images}))
        except _errors() as error:
            wanted = self._session.get_inputs()[0].shape
            message = f"{self.path} could not run on {images.shape}; its input is {wanted}"
            raise EngineError(f"{message} ({_reason(error)})") from error

    def _check_contract(self) -> None:
        """A file can carry a card and still be another graph, when a tool has rewritten it."""
        inputs = [(tensor.name, tensor.type, len(tensor.shape)) for tensor in self._session.get_inputs()]
        outputs = {tensor.name for tensor in self._session.get_outputs()}
        wanted = self._tail.inputs if self._tail else OUTPUTS
        missing = set() if self.card.nms_kind == "none" else set(wanted) - outputs
        if inputs != [(INPUT, "tensor(uint8)", 4)] or missing:
            raise EngineError(
                f"{self.path} needs one input `{INPUT}` uint8 (N, H, W, 3) and the outputs {', '.join(OUTPUTS)}; it "
                f"has inputs {inputs} and outputs {sorted(outputs)}: make it with {_EXPORT.format(name=self.path.name)}"
            )


def _provider(device: str) -> tuple[str, dict[str, str]]:
    if device == "cpu":
        return "CPUExecutionProvider", {}
    if match := re.fullmatch(r"cuda(?::(\d+))?", device):
        return "CUDAExecutionProvider", {"device_id": match[1] or "0"}
    raise ConfigError(f"device must be cpu, cuda or cuda:N, got {device!r}")


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        message = "onnxruntime is not installed: pip install 'ld-deploy[onnxruntime]' (or onnxruntime-gpu for CUDA)"
        raise BackendMissingError(message) from error
    return onnxruntime


def _errors() -> tuple[type[Exception], ...]:
    """The errors of onnxruntime: they share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoModel", "NotImplemented")
    return (*(getattr(state, name) for name in names), state.RuntimeException, RuntimeError, ValueError)


def _reason(error: Exception) -> str:
    """The last part of an onnxruntime message, on one line and of bounded length."""
    return " ".join(str(error).split(" : ")[-1].split())[:200]
