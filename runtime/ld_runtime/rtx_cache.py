"""What TensorRT-RTX compiled for this GPU, kept in a file beside the engine so that the next start is fast."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import LdDeployError
from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)


class RuntimeCache:
    """The runtime cache of an engine, and the settings that its contexts are made with.

    A cache of another GPU, driver or version is not taken, and is written anew. A file that cannot be read or written
    is said in the log: the engine works without.

    Args:
        engine: of TensorRT-RTX.
        library: `tensorrt_rtx`.
        path: of the file.
    """

    def __init__(self, engine: Any, *, library: Any, path: Path) -> None:
        self._path = path
        self._written = b""
        self.config = engine.create_runtime_config()
        self.config.cuda_graph_strategy = library.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        strategy = library.ExecutionContextAllocationStrategy.USER_MANAGED
        self.config.set_execution_context_allocation_strategy(strategy)
        self._cache = self.config.create_runtime_cache()
        if path.is_file():
            self._load()
        self.config.set_runtime_cache(self._cache)

    def _load(self) -> None:
        try:
            content = self._path.read_bytes()
        except OSError as error:
            _log.warning("this start compiles again: cannot read %s: %s", self._path, error.strerror)
            return
        if self._cache.deserialize(content):
            self._written = content
        else:
            _log.info("%s is of another GPU, driver or version: it is written anew", self._path)

    def save(self) -> None:
        """Writes the file, where there is anything new."""
        content = bytes(self._cache.serialize())
        if content == self._written:
            return
        try:
            with written_whole(self._path) as temporary:
                temporary.write_bytes(content)
        except LdDeployError as error:
            _log.warning("the next start compiles again: %s", error)
        self._written = content
