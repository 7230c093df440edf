"""Which types a network really computes in: what a name such as `fp16` promises, and a file or an engine may not hold.

Precisions have the names of the model card; tensors of anything else (indices, shapes, truth values) are not counted.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ld_runtime.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ld_runtime.engines import Engine

# The export side reads graphs: called with the path of an .onnx file.
PROOFS_GROUP = "ld_deploy.precision_proofs"
# What the engine inspector's words for a tensor say, the longer word first: "BFloat16" holds "Float" and "float16".
_INSPECTOR_WORDS = (
    ("bfloat16", "bf16"),
    ("bf16", "bf16"),
    ("fp16", "fp16"),
    ("half", "fp16"),
    ("fp8", "fp8"),
    ("uint8", None),
    ("int8", "int8"),
    ("fp32", "fp32"),
    ("float", "fp32"),
)


@dataclass(frozen=True)
class TypeShares:
    """Share of a network's layers and tensors in each precision, 0-1; each sums to 1.

    Args:
        layers: by precision; a layer is of the narrowest type among its inputs, which is what it multiplies in.
        tensors: by precision; those between layers, each counted once.
        layer_count: how many layers were counted.
        tensor_count: how many tensors.
    """

    layers: Mapping[str, float]
    tensors: Mapping[str, float]
    layer_count: int
    tensor_count: int

    @classmethod
    def of(cls, *, layers: Iterable[str], tensors: Iterable[str]) -> TypeShares:
        """Counts precision names, one for each layer and tensor."""
        by_layer, by_tensor = Counter(layers), Counter(tensors)
        return cls(_shares(by_layer), _shares(by_tensor), by_layer.total(), by_tensor.total())

    @classmethod
    def from_inspector(cls, text: str) -> TypeShares:
        """Counts what TensorRT's engine inspector says of an engine that was built with detailed verbosity.

        Args:
            text: of `get_engine_information` in JSON.

        Raises:
            EngineError: It is no such JSON, or tells no types.
        """
        layers: list[str] = []
        tensors: dict[str, str] = {}
        try:
            content = json.loads(text)
            for layer in content["Layers"] if isinstance(content, dict) else content:
                inputs, outputs = (_types(layer.get(key, ())) for key in ("Inputs", "Outputs"))
                tensors.update({**inputs, **outputs})
                if found := list((inputs or outputs).values()):
                    layers.append(min(found, key=_bits))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise EngineError(f"the engine inspector's answer cannot be read ({error!r})") from error
        if not layers:
            message = "the engine inspector tells no types: the engine was not built with detailed verbosity"
            raise EngineError(f"{message}; build it again with `ld-deploy build`")
        return cls.of(layers=layers, tensors=tensors.values())

    def require(self, precision: str, *, what: str) -> None:
        """Raises an EngineError where there is no layer and tensor of that precision.

        A network without layers with weights is nothing but fp32.

        Args:
            precision: which was promised.
            what: of which file or engine, for the message.
        """
        if precision == "fp32" and not self.layer_count:
            return
        if not self.layers.get(precision) or not self.tensors.get(precision):
            command = "quantize" if precision in ("int8", "fp8") else "convert"
            message = f"{what} is called {precision}, and has not one layer and tensor in it: it has {self}"
            raise EngineError(
                f"{message}; make it again from the fp32 file: `ld-deploy {command} --precision {precision}`"
            )

    def __str__(self) -> str:
        return f"layers {shares(self.layers)}; tensors {shares(self.tensors)}"


@dataclass(frozen=True)
class PrecisionProof:
    """What was found of the precision that a file or an engine is called by.

    Args:
        graph: of the ONNX graph; None where it was not looked at.
        engine: of the engine as the library built it; None where it was not looked at.
        remark: why not, or nothing.
    """

    graph: TypeShares | None = None
    engine: TypeShares | None = None
    remark: str = ""

    def require(self, precision: str, *, what: str) -> None:
        """Raises an EngineError where graph or engine, as far as they were looked at, have nothing of a precision."""
        for found in (self.engine, self.graph):
            if found is not None:
                found.require(precision, what=what)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PrecisionProof:
        """What `dataclasses.asdict` made, read from a JSON."""
        graph, engine = (content[key] and TypeShares(**content[key]) for key in ("graph", "engine"))
        return cls(graph=graph, engine=engine, remark=content["remark"])

    def __str__(self) -> str:
        parts = [f"{name}: {found}" for name, found in (("engine", self.engine), ("graph", self.graph)) if found]
        return "; ".join([*parts, *([self.remark] if self.remark else [])]) or "not looked at"


@runtime_checkable
class SelfProving(Protocol):
    """An engine that knows what it computes in."""

    def precision_proof(self) -> PrecisionProof:
        """What it knows."""


def proof_of(engine: Engine, path: Path) -> PrecisionProof:
    """What an engine says that it computes in; of an .onnx file, what its graph says, where that can be read here.

    Raises:
        EngineError: The file cannot be read.
    """
    if isinstance(engine, SelfProving):
        return engine.precision_proof()
    for entry in entry_points(group=PROOFS_GROUP):
        try:
            prove = entry.load()
        except ImportError:  # said below
            continue
        found: PrecisionProof = prove(path)
        return found
    word = f"{engine.card.precision} by the model card alone"
    return PrecisionProof(remark=f"{word}; pip install 'ld-deploy[export]' to read the graph")


def shares(found: Mapping[str, float]) -> str:
    """Shares in words: `80% fp16, 20% fp32`."""
    return ", ".join(f"{share:.0%} {name}" for name, share in found.items()) or "none"


def _types(tensors: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Precision of each tensor by its name; newer inspectors keep the type apart from the format."""
    found = {}
    for one in tensors:
        words = str(one.get("Format/Datatype") or one.get("Datatype") or "").lower()
        precision = next((name for word, name in _INSPECTOR_WORDS if word in words), None)
        if precision:
            found[str(one["Name"])] = precision
    return found


def _bits(precision: str) -> int:
    return {"int8": 8, "fp8": 8, "fp16": 16, "bf16": 16, "fp32": 32}[precision]


def _shares(counts: Counter[str]) -> dict[str, float]:
    return {name: count / counts.total() for name, count in counts.most_common()}
