"""ONNX -> TensorRT or TensorRT-RTX engine, with a JSON beside it. Needs no torch: engines are built on the target."""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import onnx

from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, ModelCardError
from ld_runtime.files import written_whole
from ld_runtime.model_card import METADATA_KEY, ModelCard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

Backend = Literal["tensorrt-rtx", "tensorrt"]
NmsForm = Literal["function", "plugin", "none"]
INPUT = "images"


@dataclass(frozen=True)
class BuildProfile:
    """Smallest, usual and largest input of an engine; the usual one is tuned for.

    Args:
        batch: three batch sizes.
        min_hw: height and width in pixels. Where the model's are fixed, these three are not looked at.
        opt_hw: the usual.
        max_hw: the largest.
    """

    batch: tuple[int, int, int] = (1, 1, 8)
    min_hw: tuple[int, int] | None = None
    opt_hw: tuple[int, int] | None = None
    max_hw: tuple[int, int] | None = None


def build_engine(
    model: Path,
    *,
    output: Path,
    backend: Backend = "tensorrt-rtx",
    compute_capabilities: tuple[str, ...] = (),
    profile: BuildProfile | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Builds an engine and writes it, and `OUTPUT.json` beside it.

    Args:
        model: an `.onnx` file of `ld-deploy export`.
        output: the engine.
        backend: `tensorrt-rtx` builds on any machine when it is told the GPUs; `tensorrt` builds for the GPU at hand.
        compute_capabilities: such as 8.6 and 8.9; none: every GPU that tensorrt-rtx knows, tensorrt's GPU at hand.
        profile: the range of input sizes; None: batch 1 to 8, and sides by the model card.
        progress: gets one line before each step.

    Returns:
        The content of the JSON: `card`, `backend`, `backend_version`, `compute_capabilities`, `profile`, `nms` (the
        form in which the network got it), `onnx_sha256`, `engine_sha256`.

    Raises:
        BackendMissingError: The library is not installed, or finds no GPU to build for.
        ConfigError: A GPU that the library does not know, or a profile that does not fit the model.
        EngineError: The file cannot be parsed or built.
        ModelCardError: The file carries no model card.
    """
    trt = import_backend(backend)
    content = read_model(model)
    card = read_card(content, model=model)
    logger = _collecting_logger(trt)
    try:
        builder = trt.Builder(logger)
    except (TypeError, RuntimeError) as error:  # a null pointer, where there is no driver
        raise BackendMissingError(
            f"{backend} cannot start here: {logger.summary() or error}; see `nvidia-smi`"
        ) from error
    progress(f"parse {model}")
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(content):
        reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise EngineError(f"{backend} {trt.__version__} cannot parse {model}: {reasons or logger.summary()}")
    nms = nms_form(trt, network, card=card)
    config = builder.create_builder_config()
    _set_capabilities(trt, config, compute_capabilities, backend=backend)
    shapes = profile_shapes(tuple(network.get_input(0).shape), card=card, profile=profile or BuildProfile())
    trt_profile = builder.create_optimization_profile()
    trt_profile.set_shape(INPUT, *shapes)
    config.add_optimization_profile(trt_profile)
    target = ", ".join(compute_capabilities) or {"tensorrt-rtx": "every GPU", "tensorrt": "the GPU at hand"}[backend]
    progress(f"build for {target}, images {' / '.join(map(str, shapes))}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{backend} {trt.__version__} cannot build {model}: {logger.summary()}")
    engine = bytes(plan)
    facts = {
        "card": asdict(card),
        "backend": backend,
        "backend_version": trt.__version__,
        "compute_capabilities": list(compute_capabilities),
        "profile": {"min": shapes[0], "opt": shapes[1], "max": shapes[2]},
        "nms": nms,
        "onnx_sha256": hashlib.sha256(content).hexdigest(),
        "engine_sha256": hashlib.sha256(engine).hexdigest(),
    }
    with written_whole(output) as temporary:
        temporary.write_bytes(engine)
    with written_whole(output.with_name(f"{output.name}.json")) as temporary:
        temporary.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    progress(f"wrote {output} ({len(engine) / 2**20:.1f} MiB), NMS as {nms}")
    return facts


def import_backend(backend: Backend) -> ModuleType:
    """The library's module.

    Raises:
        BackendMissingError: It is not installed.
    """
    try:
        return importlib.import_module(backend.replace("-", "_"))
    except ImportError as error:
        way_out = "pip install 'ld-deploy[tensorrt-rtx]'" if backend == "tensorrt-rtx" else "pip install tensorrt"
        raise BackendMissingError(f"{backend} is not installed: {way_out}") from error


def read_model(model: Path) -> bytes:
    """Content of a model file.

    Raises:
        EngineError: It cannot be read.
    """
    try:
        return model.read_bytes()
    except OSError as error:
        message = f"cannot read {model}: {error.strerror}"
        raise EngineError(f"{message}; make it with `ld-deploy export CONFIG CHECKPOINT -o {model.name}`") from error


def read_card(content: bytes, *, model: Path) -> ModelCard:
    """The model card of an ONNX file.

    Raises:
        EngineError: It is no ONNX file.
        ModelCardError: It carries no card.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        proto = onnx.load_from_string(content)
    except DecodeError as error:
        raise EngineError(f"{model} is no ONNX file, or it is damaged: copy or export it again") from error
    cards = [entry.value for entry in proto.metadata_props if entry.key == METADATA_KEY]
    if not cards:
        raise ModelCardError(f"{model} carries no model card: make it with `ld-deploy export CONFIG CHECKPOINT`")
    return ModelCard.from_json(cards[0])


def nms_form(trt: Any, network: Any, *, card: ModelCard) -> NmsForm:
    """How the parsed network holds the NMS: what the parser chose is not said by it.

    Raises:
        EngineError: The card promises an NMS that the network has in neither form.
    """
    kinds = [network.get_layer(index).type for index in range(network.num_layers)]
    if trt.LayerType.PLUGIN_V3 in kinds:
        return "plugin"
    if card.nms_kind == "none":
        return "none"
    if trt.LayerType.RECURRENCE not in kinds:  # of the function's loops
        raise EngineError("the parsed network holds no NMS, though the model card says so: export the model again")
    return "function"


def profile_shapes(
    input_shape: tuple[int, ...], *, card: ModelCard, profile: BuildProfile
) -> tuple[tuple[int, int, int, int], ...]:
    """Smallest, usual and largest shape (N, H, W, 3) of the input.

    Args:
        input_shape: of the network, -1 where it is dynamic.
        card: its resize rule gives the sides that the profile leaves open.
        profile: what was asked for.

    Raises:
        ConfigError: Sizes that do not grow, or are no multiples of the model's divisor.
    """
    rule = card.preprocess
    divisor = rule.size_divisor
    sides: list[tuple[int, int]]
    if input_shape[1] > 0:
        sides = [(input_shape[1], input_shape[2])] * 3
    else:
        long_edge, short_edge = (-(-edge // divisor) * divisor for edge in sorted(rule.scale or (640, 640))[::-1])
        sides = [
            profile.min_hw or (divisor, divisor),
            profile.opt_hw or (short_edge, long_edge),
            profile.max_hw or (long_edge, long_edge),
        ]
    shapes = tuple((batch, *hw, 3) for batch, hw in zip(profile.batch, sides, strict=True))
    for small, large in (shapes[:2], shapes[1:]):
        if any(a > b for a, b in zip(small, large, strict=True)):
            raise ConfigError(f"the sizes must grow from min to opt to max, got {shapes} as (batch, height, width, 3)")
    if any(side < 1 or side % divisor for hw in sides for side in hw) or profile.batch[0] < 1:
        raise ConfigError(f"heights and widths must be multiples of {divisor} and batches 1 or more, got {shapes}")
    return shapes


def _set_capabilities(trt: Any, config: Any, wanted: tuple[str, ...], *, backend: Backend) -> None:
    if not wanted:
        return
    if backend != "tensorrt-rtx":
        message = f"{backend} builds for the GPU at hand alone, --compute-capability {' '.join(wanted)} was asked for"
        raise ConfigError(f"{message}: leave it out, or use --backend tensorrt-rtx")
    known = {name[2:]: value for name, value in trt.ComputeCapability.__members__.items() if name.startswith("SM")}
    names = [one.replace(".", "") for one in wanted]
    if unknown := [one for one, name in zip(wanted, names, strict=True) if name not in known]:
        message = f"{backend} {trt.__version__} knows no compute capability {', '.join(unknown)}"
        raise ConfigError(f"{message}; it knows {', '.join(f'{name[:-1]}.{name[-1]}' for name in known)}")
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(known[name], index)


def _collecting_logger(trt: Any) -> Any:
    """A logger that keeps errors for the message of an exception, and prints nothing."""

    class Collecting(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def summary(self) -> str:
            return "; ".join(self.errors[:3])

    return Collecting()
