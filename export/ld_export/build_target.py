"""What an engine is built for: which GPUs, and with which plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_runtime.cuda_device import CudaDevice
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError
from ld_runtime.nearest import nearest_path
from ld_runtime.tensorrt_library import find_plugin, load_plugin, plugin_library, registered_ops

if TYPE_CHECKING:
    from pathlib import Path

    from ld_export.build_settings import BuildSettings
    from ld_runtime.model_card import ModelCard, Precision

# The first compute capability whose GPUs compute in it.
_FIRST = {"bf16": (8, 0), "fp8": (8, 9)}


def plugin_for(library: Any, settings: BuildSettings, card: ModelCard) -> Path | None:
    """The library of the plugin that is to be used, registered; or None.

    Raises:
        ConfigError: There is no NMS for it in the file.
        BackendMissingError: It was asked for and is not there, or cannot be loaded.
        EngineError: tensorrt-rtx has a plugin of ours.
    """
    if settings.backend == "tensorrt-rtx":
        if found := registered_ops(library):
            message = f"{', '.join(found)} is registered with tensorrt-rtx, which would end the process"
            raise EngineError(f"{message}: build in a process that loads no plugin")
        return None
    wanted = settings.plugin or settings.plugin_library is not None or settings.serialize_plugin
    if card.nms_kind == "none":
        if wanted:
            raise ConfigError("the file ends in candidates (--nms none), so there is no NMS for a plugin: --no-plugin")
        return None
    path = settings.plugin_library or (find_plugin(library) if wanted else plugin_library(library))
    if settings.plugin is False or path is None:
        return None
    if not path.is_file():
        guess = nearest_path(path) or ":"
        message = f"there is no plugin library {path}{guess} make plugin TENSORRT_INCLUDE=... builds it"
        raise BackendMissingError(message)
    load_plugin(library, path, backend=settings.backend)
    return path


def targets_of(library: Any, settings: BuildSettings, precision: Precision) -> tuple[str, tuple[str, ...] | None]:
    """The GPU at hand or "", and the compute capabilities that are built for; None for every one.

    Raises:
        ConfigError: The library does not know one, or one does not compute in this precision.
        BackendMissingError: tensorrt builds for the GPU at hand, and there is none.
    """
    wanted: tuple[str, ...]
    known: tuple[str, ...]
    first = _FIRST.get(precision, (0, 0))
    if settings.backend == "tensorrt":
        facts = CudaDevice().facts
        wanted = (facts.compute_capability,)
        known, gpu = wanted, facts.name
    else:
        known, gpu = tuple(capabilities(library)), ""
        wanted = settings.compute_capabilities or tuple(name for name in known if _numbers(name) >= first)
    if unknown := [name for name in wanted if name not in known]:
        message = f"tensorrt-rtx {library.__version__} knows no compute capability {', '.join(unknown)}"
        raise ConfigError(f"{message}; it knows {', '.join(known)}")
    if old := [name for name in wanted if _numbers(name) < first]:
        message = f"{precision} needs compute capability {first[0]}.{first[1]}, {', '.join(old)} is to be built for"
        raise ConfigError(f"{message}: use --precision fp16")
    return gpu, None if settings.backend == "tensorrt-rtx" and wanted == known else wanted


def _numbers(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


def capabilities(library: Any) -> dict[str, Any]:
    """The library's compute capabilities by their usual names, such as 8.9."""
    members = library.ComputeCapability.__members__
    return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}
