"""TensorRT and TensorRT-RTX, which share one Python interface: the only module that imports them.

Versions 10.13 to 11.x of TensorRT: what is used here is the same in all of them. Networks are strongly typed, which
11.x always is; its flag is still accepted there.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ld_runtime
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError

if TYPE_CHECKING:
    from ld_runtime.engine_file import EngineBackend

OLDEST = (10, 13)  # older ones parse our node's attributes and choose plugins in other ways, and have no CUDA 13 build
OPS = ("GFLDetect", "ClusterDIoUNMS", "RotatedGFLDetect", "RotatedClusterNMS")
NAMESPACE, PLUGIN_VERSION = "ld_deploy", "1"


def import_library(backend: EngineBackend) -> Any:
    """The library's module.

    Raises:
        BackendMissingError: It is not installed, cannot be loaded, or is too old.
    """
    way_out = "pip install 'ld-deploy[tensorrt-rtx]'" if backend == "tensorrt-rtx" else "pip install tensorrt"
    try:
        library = importlib.import_module(backend.replace("-", "_"))
    except ImportError as error:
        raise BackendMissingError(f"{backend} is not installed: {way_out}") from error
    except OSError as error:
        raise BackendMissingError(f"{backend} cannot be loaded ({error}): {way_out}") from error
    if backend == "tensorrt" and version_of(library) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        message = f"tensorrt {library.__version__} is too old, {oldest} or later is needed"
        raise BackendMissingError(f"{message}: pip install 'tensorrt>={oldest}'")
    return library


def version_of(library: Any) -> tuple[int, int]:
    """Major and minor version."""
    major, minor = re.findall(r"\d+", library.__version__)[:2]
    return int(major), int(minor)


def collecting_logger(library: Any) -> Any:
    """A logger that keeps errors for the message of an exception, and prints nothing."""

    class Collecting(library.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.Severity.ERROR, library.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def summary(self) -> str:
            return "; ".join(self.errors[:3])

    return Collecting()


def plugin_library(library: Any) -> Path | None:
    """Our plugin for this major version of TensorRT, or None where it was not built."""
    name = f"libld_deploy_plugin_trt{version_of(library)[0]}.so"
    return next((path for path in built_plugins() if path.name == name), None)


def built_plugins() -> list[Path]:
    """Our plugins that were built, each for a major version of TensorRT."""
    folders = [Path(folder) / "lib" for folder in ld_runtime.__path__]
    return [path for folder in folders for path in sorted(folder.glob("libld_deploy_plugin_trt*.so"))]


def registered_ops(library: Any) -> list[str]:
    """Which of our ops the library has a plugin of."""
    registry = library.get_plugin_registry()
    return [op for op in OPS if registry.get_creator(op, PLUGIN_VERSION, NAMESPACE) is not None]


def load_plugin(library: Any, path: Path, *, backend: EngineBackend) -> None:
    """Registers our ops, for parsing and for opening engines. Loading twice does nothing.

    Args:
        library: TensorRT.
        path: of `libld_deploy_plugin_trtN.so`.
        backend: tensorrt-rtx is refused: it ends the process where it meets a plugin.

    Raises:
        ConfigError: For tensorrt-rtx.
        BackendMissingError: The library cannot be loaded, or does not hold our ops.
    """
    if backend == "tensorrt-rtx":
        raise ConfigError("tensorrt-rtx has no plugins: leave --plugin out, or use --backend tensorrt")
    if set(registered_ops(library)) != set(OPS):
        library.get_plugin_registry().load_library(
            str(path)
        )  # None where it fails, and where another copy had registered an op
    if missing := [op for op in OPS if op not in registered_ops(library)]:
        message = f"{path} registers no {', '.join(missing)} with tensorrt {library.__version__}"
        raise BackendMissingError(f"{message}: build it for this version with `make plugin TENSORRT_INCLUDE=...`")


def find_plugin(library: Any) -> Path:
    """Our plugin for this major version of TensorRT.

    Raises:
        BackendMissingError: It was not built.
    """
    path = plugin_library(library)
    if path is None:
        message = f"the plugin for tensorrt {version_of(library)[0]} was not built"
        raise BackendMissingError(f"{message}: make plugin TENSORRT_INCLUDE=... puts it into ld_runtime/lib")
    return path


def deserialize(library: Any, content: bytes, *, logger: Any, host_code: bool = False) -> tuple[Any, Any]:
    """Opens an engine on the current device.

    Args:
        library: TensorRT or TensorRT-RTX.
        content: of the engine.
        logger: of `collecting_logger`.
        host_code: lets the engine load the plugin library that lies in it.

    Returns:
        The runtime, which must outlive the engine, and the engine.

    Raises:
        EngineError: The library does not take it.
    """
    try:
        runtime = library.Runtime(logger)
    except (TypeError, RuntimeError) as error:  # a null pointer, where there is no driver
        raise BackendMissingError(
            f"no GPU to open an engine on: {logger.summary() or error}; see `nvidia-smi`"
        ) from error
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(f"{library.__name__} {library.__version__} cannot open it: {logger.summary()}")
    return runtime, engine
