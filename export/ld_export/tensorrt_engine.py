"""ONNX -> TensorRT or TensorRT-RTX engine, with a JSON beside it. Needs no torch: engines are built on the target.

Networks are strongly typed: the precision is that of the graph, which is converted first where that is asked for.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ld_export import deployed_file, typed
from ld_export.build_progress import PhaseMeter, progress_monitor
from ld_export.build_settings import BuildSettings, cache_key, profile_shapes
from ld_export.build_target import capabilities, plugin_for, targets_of
from ld_export.graph_types import graph_types
from ld_runtime.engine_file import EngineRecord, PluginUse, ShapeRange, read_engine, write_record
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, LdDeployError
from ld_runtime.files import check_writable, written_whole
from ld_runtime.onnx_file import INPUT
from ld_runtime.precision_proof import PrecisionProof, TypeShares
from ld_runtime.tensorrt_library import (
    collecting_logger,
    deserialize,
    import_library,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

    from ld_runtime.engine_file import NmsForm
    from ld_runtime.model_card import ModelCard, Precision


def build_engine(
    model: Path,
    *,
    output: Path,
    settings: BuildSettings | None = None,
    progress: Callable[[str], None] = lambda _: None,
    meter: Callable[[str, float], None] = lambda _name, _share: None,
) -> EngineRecord:
    """Builds an engine and writes it, and `OUTPUT.json` beside it; or finds that it is there already.

    Args:
        model: an `.onnx` file of `ld-deploy export`, `convert` or `quantize`.
        output: the engine.
        settings: how to build.
        progress: gets one line before each step.
        meter: gets the library's phase and the share of the build that is done, 0-1.

    Returns:
        The content of the JSON.

    Raises:
        BackendMissingError: The library, the plugin or the GPU is not there.
        ConfigError: A GPU that the library does not know, a profile or precision that does not fit the model, or
            settings that do not go together.
        EngineError: The file cannot be parsed or built, or its precision or NMS is not what was asked for.
        ModelCardError: The file carries no model card.
        LdDeployError: The engine cannot be written. A timing cache that cannot be is said, and is no error.
    """
    settings = settings or BuildSettings()
    source, card = deployed_file.read(model)
    network, card = in_precision(source, card, settings.precision, model=model)
    graph = graph_types(network)
    graph.require(card.precision, what=str(model))
    library = import_library(settings.backend)
    plugin = plugin_for(library, settings, card)
    gpu, targets = targets_of(library, settings, card.precision)
    content = network.SerializeToString(deterministic=True)
    shapes = profile_shapes(_fixed_hw(network), card=card, profile=settings.profile)
    plugin_sha256 = hashlib.sha256(plugin.read_bytes()).hexdigest() if plugin else ""
    key = cache_key(
        settings,
        content_sha256=hashlib.sha256(content).hexdigest(),
        version=library.__version__,
        compute_capabilities=targets,
        shapes=shapes,
        plugin_sha256=plugin_sha256,
    )
    if not settings.force and (found := up_to_date(output, key=key)) is not None:
        progress(f"{output} is up to date, built from the same file with the same settings (--force builds it again)")
        return found

    check_writable(output)
    build = _Build(library, settings, targets, progress, meter)
    start = perf_counter()
    engine, nms, op = build.run(content, model=model, card=card, plugin=plugin, shapes=shapes, output=output)
    record = EngineRecord(
        card=card,
        backend=settings.backend,
        backend_version=library.__version__,
        compute_capabilities=targets,
        gpu=gpu,
        profile=shapes,
        tf32=settings.tf32,
        nms=nms,
        plugin=PluginUse(op=op, sha256=plugin_sha256, serialized=settings.serialize_plugin) if op else None,
        precision_proof=build.proof(engine, graph=graph, precision=card.precision, name=output.name),
        onnx=model.name,
        onnx_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
        engine_sha256=hashlib.sha256(engine).hexdigest(),
        cache_key=key,
        build_seconds=perf_counter() - start,
    )
    with written_whole(output) as temporary:
        temporary.write_bytes(engine)
    write_record(record, output)
    form = f"{op} as plugin" if op else f"NMS as {nms}" if nms != "none" else "candidates, no NMS"
    progress(f"wrote {output} ({len(engine) / 2**20:.1f} MiB, {record.build_seconds:.0f} s), {form}")
    progress(f"precision {card.precision}: {record.precision_proof}")
    return record


def up_to_date(engine: Path, *, key: str) -> EngineRecord | None:
    """The JSON of an engine that is whole and has that key, or None."""
    try:
        _, record = read_engine(engine)
    except LdDeployError:  # none there, damaged, or of another version: it is built
        return None
    return record if record.cache_key == key else None


def in_precision(
    network: ModelProto, card: ModelCard, wanted: Precision | None, *, model: Path
) -> tuple[ModelProto, ModelCard]:
    """The file in the precision that was asked for.

    Raises:
        ConfigError: The file is in another precision, or fp32 and int8 or fp8 was asked for.
        EngineError: It cannot be converted.
    """
    if wanted in (None, card.precision):
        return network, card
    if card.precision != "fp32":
        message = f"{model} is {card.precision} by its model card, and --precision {wanted} was asked for"
        raise ConfigError(f"{message}: leave --precision out, or give the fp32 file that it was made from")
    if wanted == "fp16" or wanted == "bf16":  # noqa: PLR1714 - narrows the type
        converted, card, _ = typed.convert(network, card=card, precision=wanted)
        return converted, card
    message = f"{model} is fp32, and {wanted} needs scales from images"
    raise ConfigError(f"{message}: `ld-deploy quantize {model.name} --precision {wanted}`, then build that file")


def nms_form(library: Any, network: Any, *, card: ModelCard) -> tuple[NmsForm, str]:
    """How the parsed network holds the NMS, and the plugin's op or "": what the parser chose is not said by it.

    Raises:
        EngineError: The card promises an NMS that the network has in neither form.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    plugins = [layer for layer in layers if layer.type == library.LayerType.PLUGIN_V3]
    if plugins:  # the NMS alone takes boxes, scores and labels; with the decode two maps a level
        nms, detect = ("RotatedClusterNMS", "RotatedGFLDetect") if card.is_rotated else ("ClusterDIoUNMS", "GFLDetect")
        return "plugin", nms if plugins[0].num_inputs == 3 else detect
    if card.nms_kind == "none":
        return "none", ""
    if not any(layer.type == library.LayerType.RECURRENCE for layer in layers):  # of the function's loops
        raise EngineError("the parsed network holds no NMS, though the model card says so: export the model again")
    return "function", ""


@dataclass(frozen=True)
class _Build:
    """One build with one library."""

    library: Any
    settings: BuildSettings
    targets: tuple[str, ...] | None
    progress: Callable[[str], None]
    meter: Callable[[str, float], None]

    def run(
        self, content: bytes, *, model: Path, card: ModelCard, plugin: Path | None, shapes: ShapeRange, output: Path
    ) -> tuple[bytes, NmsForm, str]:
        """Parses, checks and builds; returns the engine, the form of its NMS and the plugin's op."""
        library, backend = self.library, self.settings.backend
        logger = collecting_logger(library)
        try:
            builder = library.Builder(logger)
        except (TypeError, RuntimeError) as error:  # a null pointer, where there is no driver
            message = f"{backend} cannot start here: {logger.summary() or error}"
            raise BackendMissingError(f"{message}; see `nvidia-smi`") from error
        self.progress(f"parse {model} with {backend} {library.__version__}")
        network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = library.OnnxParser(network, logger)
        if not parser.parse(content):
            reasons = "; ".join(parser.get_error(index).desc() for index in range(parser.num_errors))
            raise EngineError(f"{backend} {library.__version__} cannot parse {model}: {reasons or logger.summary()}")
        nms, op = nms_form(library, network, card=card)
        if (nms == "plugin") != (plugin is not None):
            asked = f"the plugin {plugin}" if plugin else "no plugin"
            message = f"{asked} was asked for, and {backend} {library.__version__} took the NMS as {nms}"
            raise EngineError(f"{message}: export the model again, and build it in a fresh process")
        config = self._config(builder, plugin, shapes)
        cache = self._load_timing_cache(config, output)
        monitor = progress_monitor(library, PhaseMeter(self.meter))
        config.progress_monitor = monitor
        self.progress(f"build, images {shapes}, {self._target_words()}")
        plan = builder.build_serialized_network(network, config)
        if monitor.interrupted:
            raise KeyboardInterrupt
        if plan is None:
            raise EngineError(f"{backend} {library.__version__} cannot build {model}: {logger.summary()}")
        if cache is not None:
            self._save_timing_cache(config, cache)
        return bytes(plan), nms, op

    def proof(self, engine: bytes, *, graph: TypeShares, precision: str, name: str) -> PrecisionProof:
        """What the graph and, where it can be opened here, the engine compute in.

        Raises:
            EngineError: The engine has nothing of its precision.
        """
        if self.settings.backend == "tensorrt-rtx":
            remark = "tensorrt-rtx chooses its kernels on the GPU that runs the engine: the graph alone is proved"
            return PrecisionProof(graph=graph, remark=remark)
        _runtime, opened = deserialize(self.library, engine, logger=collecting_logger(self.library))
        words = opened.create_engine_inspector().get_engine_information(self.library.LayerInformationFormat.JSON)
        found = TypeShares.from_inspector(words)
        found.require(precision, what=name)
        return PrecisionProof(graph=graph, engine=found)

    def _config(self, builder: Any, plugin: Path | None, shapes: ShapeRange) -> Any:
        library, settings = self.library, self.settings
        config = builder.create_builder_config()
        (config.set_flag if settings.tf32 else config.clear_flag)(library.BuilderFlag.TF32)
        config.profiling_verbosity = library.ProfilingVerbosity.DETAILED  # the inspector tells no types without
        if settings.backend == "tensorrt-rtx" and self.targets is not None:
            config.num_compute_capabilities = len(self.targets)
            for index, name in enumerate(self.targets):
                config.set_compute_capability(capabilities(library)[name], index)
        if plugin is not None and settings.serialize_plugin:
            config.set_flag(library.BuilderFlag.VERSION_COMPATIBLE)  # the library serializes plugins with it alone
            config.plugins_to_serialize = [str(plugin)]
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, shapes.min, shapes.opt, shapes.max)
        config.add_optimization_profile(profile)
        return config

    def _load_timing_cache(self, config: Any, output: Path) -> Path | None:
        """Gives the library what it measured before; returns where that is kept, None for tensorrt-rtx."""
        if self.settings.backend == "tensorrt-rtx":
            return None
        path = self.settings.timing_cache or output.with_name("timing.cache")
        content = path.read_bytes() if path.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(content), False):
            self.progress(f"{path} is of another GPU or version: it is begun anew")
            config.set_timing_cache(config.create_timing_cache(b""), False)
        return path

    def _save_timing_cache(self, config: Any, path: Path) -> None:
        try:
            with written_whole(path) as temporary:
                temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        except LdDeployError as error:  # no reason to lose the engine
            self.progress(f"the next build measures again: {error}")

    def _target_words(self) -> str:
        return f"for {', '.join(self.targets)}" if self.targets else "for every GPU that tensorrt-rtx knows"


def _fixed_hw(network: ModelProto) -> tuple[int, int] | None:
    """Height and width of the input, None where one is dynamic."""
    _, height, width, _ = network.graph.input[0].type.tensor_type.shape.dim
    fixed = height.HasField("dim_value") and width.HasField("dim_value")
    return (height.dim_value, width.dim_value) if fixed else None
