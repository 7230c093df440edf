"""What can run a model file here, what cannot and why, and the advice that measurements lead to."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ld_runtime.engines import ModelSpec
from ld_runtime.errors import ConfigError, EngineError, ModelCardError
from ld_runtime.pareto import faster

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ld_runtime.engines import Arithmetic, Backend
    from ld_runtime.pareto import Choice

_EXTRAS = {"onnxruntime": "ld-deploy[onnxruntime]", "openvino": "ld-deploy[openvino]"}


@dataclass(frozen=True)
class NotTried:
    """A way to run a model that was not measured.

    Args:
        what: `FILE@BACKEND[:PRECISION]`, or a file that could be made.
        reason: why not.
        command: what would make it possible; None where the reason says what there is to say.
    """

    what: str
    reason: str
    command: str | None = None

    def __str__(self) -> str:
        """One line."""
        return ": ".join(one for one in (self.what, self.reason, self.command) if one)


def discover(
    given: Sequence[ModelSpec], *, device: str, suggest: bool = True
) -> tuple[list[ModelSpec], list[NotTried]]:
    """Every engine and precision that could run the files.

    Args:
        given: files; those that name their backend are taken as they are.
        device: `cpu`, `cuda` or `cuda:N`.
        suggest: whether to say what files could be made of these.

    Returns:
        What to try, each once, in the order of the files; and what is known to be impossible here, or not yet made.

    Raises:
        ConfigError: No such device.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise ConfigError(f"the target must be cpu, cuda or cuda:N, got {device!r}")
    specs: dict[ModelSpec, None] = {}
    not_tried: list[NotTried] = []
    precisions = {one.path: _precision(one.path) for one in given}
    for one in given:
        for spec in [one] if one.backend else _ways(one.path, precisions[one.path], device=device):
            engine = spec.path.suffix.lower() == ".engine"
            if engine and device == "cpu":
                not_tried.append(NotTried(str(spec), "an engine runs on a GPU", "give --target cuda"))
            elif spec.backend in _EXTRAS and find_spec(spec.backend) is None:
                command = f"pip install '{_EXTRAS[spec.backend]}'"
                not_tried.append(NotTried(str(spec), f"{spec.backend} is not installed", command))
            else:
                specs[spec] = None
    return list(specs), [*dict.fromkeys(not_tried), *(_not_made(precisions, device=device) if suggest else ())]


def _ways(path: Path, precision: str | None, *, device: str) -> list[ModelSpec]:
    """What could run a file. One that cannot be read has one way, so that opening it says what is wrong."""
    if path.suffix.lower() != ".onnx":
        return [ModelSpec(path)]
    ways: list[tuple[Backend, Arithmetic | None]] = [("onnxruntime", None)]
    if device == "cpu" and precision:
        ways.append(("openvino", None))
    if device == "cpu" and precision == "fp32":
        ways.append(("openvino", "bf16"))
    return [ModelSpec(path, backend, arithmetic) for backend, arithmetic in ways]


def _precision(path: Path) -> str | None:
    """By the model card of an ONNX file; None for other files, and for those that cannot be read."""
    from ld_runtime.onnx_file import read_card, read_file

    if path.suffix.lower() != ".onnx":
        return None
    try:
        return read_card(read_file(path), path=path).precision
    except (EngineError, ModelCardError):
        return None


def _not_made(precisions: dict[Path, str | None], *, device: str) -> list[NotTried]:
    """Files that could be made of those that were given."""
    found = []
    for path, precision in precisions.items():
        if precision == "fp32" and "int8" not in precisions.values():
            new = path.with_suffix(".int8.onnx")
            found.append(_new(new, "quantize", str(path), "--images", "TRAINING_IMAGES"))
        engines = [one for one in precisions if one.suffix == ".engine" and one.name.startswith(f"{path.stem}.")]
        if precision and device != "cpu" and not engines:
            half = ["--precision", "fp16"] if precision == "fp32" else []
            new = path.with_suffix(".fp16.engine" if half else ".engine")
            found.append(_new(new, "build", str(path), *half))
    return found


def _new(path: Path, *command: str) -> NotTried:
    """A file that was not given: perhaps it is there all the same, and should not be overwritten."""
    if path.exists():
        return NotTried(str(path), "it is there and was not given", "name it too")
    return NotTried(str(path), "there is no such file yet", shlex.join(["ld-deploy", *command, "-o", str(path)]))


def command_of(spec: ModelSpec, images: str, *, device: str) -> str:
    """The command line that detects with it."""
    on = [] if device == "cpu" else ["--device", device]
    return shlex.join(["ld-deploy", "detect", str(spec), images, *on, "-o", "detections"])


def python_of(spec: ModelSpec, *, device: str) -> str:
    """The line of Python that opens it."""
    named = {"backend": spec.backend, "precision": spec.precision, "device": None if device == "cpu" else device}
    settings = "".join(f", {key}={value!r}" for key, value in named.items() if value)
    return f"Detector({str(spec.path)!r}{settings})"


def advice(
    taken: Choice | None,
    choices: Sequence[Choice],
    *,
    word: str,
    max_latency_ms: float | None = None,
    min_quality: float | None = None,
) -> str:
    """One sentence: what to take, against the first choice.

    Args:
        taken: what `ld_runtime.pareto.take` left of the choices.
        choices: all, one or more.
        word: what their quality is called: `AP` or `agreement`.
        max_latency_ms: what `take` was given.
        min_quality: what `take` was given.
    """
    latency = None if max_latency_ms is None else f"{max_latency_ms:g} ms"
    quality = None if min_quality is None else f"{word} {min_quality:g}"
    budget = " and ".join(one for one in (latency, quality) if one)
    if taken is None:
        fastest = min(choices, key=lambda one: one.latency_ms)
        best = max(choices, key=lambda one: one.quality)
        fast, good = (f"{one.name} with {one.latency_ms:.1f} ms, {word} {one.shown:.3f}" for one in (fastest, best))
        if fastest is best:
            return f"none is within {budget}: the fastest and the best is {fast}"
        return f"none is within {budget}: the fastest is {fast}; the best is {good}"
    within = f" (within {budget})" if budget else ""
    first = choices[0]
    if taken is first:
        return f"take {taken.name}{within}: no other is a better choice here"
    apart = faster(taken, first) or faster(first, taken)
    speed = f"{first.latency_ms / taken.latency_ms:.1f} times as fast as" if apart else "as fast as"
    points = 100 * (taken.shown - first.shown)
    unit = "AP points" if word == "AP" else f"points of {word}"
    loss = f"{points:+.1f} {unit}" if abs(points) >= 0.05 else f"the same {word}"
    return f"take {taken.name}{within}: {speed} {first.name} at {loss}"
