"""The JSON beside an engine: what the runtime needs of it, what it was built from, and for which GPU and library."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ld_runtime.errors import EngineError
from ld_runtime.files import write_text
from ld_runtime.model_card import ModelCard
from ld_runtime.nearest import nearest_path
from ld_runtime.precision_proof import PrecisionProof

if TYPE_CHECKING:
    from pathlib import Path

    from ld_runtime.model_card import Precision

SCHEMA_VERSION = 1
EngineBackend = Literal["tensorrt", "tensorrt-rtx"]
# In which form the parser took the node that ends the file.
NmsForm = Literal["function", "plugin", "none"]
Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class ShapeRange:
    """Smallest, usual and largest input (N, H, W, 3) of an engine; the usual one it was tuned for."""

    min: Shape
    opt: Shape
    max: Shape

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether an input of that shape lies between smallest and largest."""
        return len(shape) == len(self.min) and all(
            low <= side <= high for low, side, high in zip(self.min, shape, self.max, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.min} to {self.max}"


@dataclass(frozen=True)
class PluginUse:
    """The plugin that an engine needs.

    Args:
        op: which op it computes, such as `GFLDetect`.
        sha256: of the library that the engine was built with.
        serialized: whether that library is inside the engine, so that none has to be found.
    """

    op: str
    sha256: str
    serialized: bool


@dataclass(frozen=True)
class EngineRecord:
    """Content of the JSON.

    Args:
        card: of the ONNX file, with the engine's precision.
        backend: the library.
        backend_version: an engine runs in that version alone.
        compute_capabilities: such as 8.9; an engine runs on those alone. None: on every GPU that tensorrt-rtx knows.
        gpu: where it was built, or "" where there was none.
        profile: which inputs it takes.
        tf32: whether float32 products may be rounded to TF32.
        nms: in which form it holds the NMS.
        plugin: where that is `plugin`.
        precision_proof: which types are in it.
        onnx: name of the file that it was built from.
        onnx_sha256: of that file.
        engine_sha256: of the engine.
        cache_key: hash of everything that the engine depends on.
        build_seconds: how long the library took.
    """

    card: ModelCard
    backend: EngineBackend
    backend_version: str
    compute_capabilities: tuple[str, ...] | None
    gpu: str
    profile: ShapeRange
    tf32: bool
    nms: NmsForm
    plugin: PluginUse | None
    precision_proof: PrecisionProof
    onnx: str
    onnx_sha256: str
    engine_sha256: str
    cache_key: str
    build_seconds: float

    @property
    def precision(self) -> Precision:
        """Of the network; what follows it is float32."""
        return self.card.precision

    def to_json(self) -> str:
        """One JSON object with a line for each entry."""
        content = {"schema_version": SCHEMA_VERSION, **asdict(self), "card": json.loads(self.card.to_json())}
        return json.dumps(content, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EngineRecord:
        """Reads what `to_json` wrote.

        Raises:
            EngineError: Not JSON, a key is missing or unknown, or the schema is another version's.
            ModelCardError: The card in it cannot be read.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            version = data.pop("schema_version", None)
            if version != SCHEMA_VERSION:
                raise EngineError(f"it has schema version {version!r}, this ld-deploy reads {SCHEMA_VERSION}")
            targets, plugin = data.pop("compute_capabilities"), data.pop("plugin")
            return cls(
                card=ModelCard.from_json(json.dumps(data.pop("card"))),
                profile=ShapeRange(**{name: tuple(shape) for name, shape in data.pop("profile").items()}),
                compute_capabilities=None if targets is None else tuple(targets),
                plugin=None if plugin is None else PluginUse(**plugin),
                precision_proof=PrecisionProof.from_dict(data.pop("precision_proof")),
                **data,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(f"it cannot be read ({error!r})") from error

    def rebuild_command(self, engine: Path, *, with_plugin: bool | None = None) -> str:
        """The command that makes such an engine here: the same sizes and settings, for the GPU at hand.

        Args:
            engine: where it lies.
            with_plugin: instead of what this one has.
        """
        parts = [f"ld-deploy build {self.onnx} -o {engine.name} --backend {self.backend} --precision {self.precision}"]
        shapes = self.profile.min, self.profile.opt, self.profile.max
        if self.backend == "tensorrt":
            wanted = self.plugin is not None if with_plugin is None else with_plugin
            parts.append("--plugin" if wanted else "--no-plugin")
        if self.plugin is not None and self.plugin.serialized:
            parts.append("--serialize-plugin")
        if self.tf32:
            parts.append("--tf32")
        parts.append(f"--batch {' '.join(str(batch) for batch, *_ in shapes)}")
        if self.card.preprocess.input_hw is None:
            sides = zip(("min", "opt", "max"), shapes, strict=True)
            parts += [f"--{name}-hw {height} {width}" for name, (_, height, width, _) in sides]
        return f"`{' '.join(parts)}`"


def record_path(engine: Path) -> Path:
    """Where the JSON of an engine lies."""
    return engine.with_name(f"{engine.name}.json")


def write_record(record: EngineRecord, engine: Path) -> None:
    """Writes the JSON beside an engine.

    Raises:
        LdDeployError: It cannot be written.
    """
    write_text(record_path(engine), record.to_json())


def read_record(engine: Path) -> EngineRecord:
    """Reads the JSON beside an engine.

    Raises:
        EngineError: It is not there, or cannot be read.
        ModelCardError: The card in it cannot be read.
    """
    path = record_path(engine)
    try:
        return EngineRecord.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"{engine} has no {path.name} beside it, and without that its preprocessing is unknown"
        raise EngineError(f"{message}: copy it too, or {_build(engine)}") from error
    except (OSError, UnicodeDecodeError, EngineError) as error:
        raise EngineError(f"{path}: {error}; {_build(engine)}") from error


def read_engine(engine: Path) -> tuple[bytes, EngineRecord]:
    """An engine and its JSON.

    Raises:
        EngineError: One of them is not there or damaged, or they do not belong together.
        ModelCardError: The card cannot be read.
    """
    if not engine.is_file():
        found = "it is a folder" if engine.is_dir() else "there is no such file"
        raise EngineError(f"cannot open {engine}: {found}{nearest_path(engine) or ';'} {_build(engine)}")
    record = read_record(engine)
    try:
        content = engine.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot open {engine}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != record.engine_sha256:
        message = f"{engine} is damaged or not the engine that {record_path(engine).name} was written for"
        raise EngineError(f"{message} (its SHA-256 is another): copy both again, or {record.rebuild_command(engine)}")
    return content, record


def check_place(record: EngineRecord, engine: Path, *, version: str, compute_capability: str) -> None:
    """Whether an engine can run in this version of its library, on this GPU.

    Args:
        record: of the engine.
        engine: where it lies, for the message.
        version: of the library here.
        compute_capability: of the GPU here, such as 8.9.

    Raises:
        EngineError: It cannot; the message has the command that builds it for here.
    """
    way_out = f"engines run where they were built for, build it again here: {record.rebuild_command(engine)}"
    if version != record.backend_version:
        built = f"{record.backend} {record.backend_version}"
        raise EngineError(f"{engine} was built with {built}, here is {version}; {way_out}")
    if record.compute_capabilities is not None and compute_capability not in record.compute_capabilities:
        built = ", ".join(record.compute_capabilities) + (f" ({record.gpu})" if record.gpu else "")
        message = f"{engine} was built for compute capability {built}, the GPU here has {compute_capability}"
        raise EngineError(f"{message}; {way_out}")


def _build(engine: Path) -> str:
    return f"make it with `ld-deploy build {engine.stem}.onnx -o {engine.name}`"
