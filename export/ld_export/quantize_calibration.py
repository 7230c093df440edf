"""What the tensors of a network hold on images, and the scales that follow from it."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import onnxruntime
from onnx import ModelProto, helper

from ld_export.quantize_graph import FLOAT8_ZERO_POINT, LARGEST, Kind
from ld_export.quantize_scales import METHODS, Histogram, Method, largest_value
from ld_runtime.errors import ConfigError, DataError
from ld_runtime.onnx_file import INPUT, with_uint8_activations
from ld_runtime.preprocess import decode, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ld_export.quantize_plan import Plan
    from ld_runtime.model_card import ModelCard

# Searches over thresholds of equal steps say nothing about a floating encoding.
FLOAT8_METHODS: tuple[Method, ...] = tuple(one for one in METHODS if one not in ("entropy", "mse"))


def methods_of(kind: Kind) -> tuple[Method, ...]:
    """The methods that are tried for an encoding."""
    return METHODS if kind == "int8" else FLOAT8_METHODS


def check_methods(methods: Iterable[Method], *, kind: Kind) -> None:
    """Raises a ConfigError where a method is not for an encoding."""
    for method in methods:
        if method not in methods_of(kind):
            raise ConfigError(f"method {method} is not for {kind}: take one of {', '.join(methods_of(kind))}")


def canvas_of(path: Path, *, card: ModelCard) -> NDArray[np.uint8]:
    """An image file as the network takes it: uint8 (1, H, W, 3)."""
    return prepare(decode(path), card.preprocess).canvas[None]


def open_session(model: ModelProto, *, threads: int | None = None) -> Any:
    """ONNX Runtime on the CPU as a deployed file has it there: quantized activations are uint8."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    content = with_uint8_activations(model.SerializeToString())
    # As in `ld_runtime.onnxruntime_engine`: with float8 this rewriting drops ReLUs.
    float8 = any(one.name == FLOAT8_ZERO_POINT for one in model.graph.initializer)
    return onnxruntime.InferenceSession(
        content,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["ReluQuantRewrite"] if float8 else [],
    )


def collect(
    trunk: ModelProto,
    *,
    tensors: Sequence[str],
    paths: Iterable[Path],
    card: ModelCard,
    threads: int | None = None,
    progress: Callable[[], object] = lambda: None,
) -> dict[str, Histogram]:
    """Magnitudes of tensors over images.

    Args:
        trunk: the float network.
        tensors: names.
        paths: image files; each goes through the preprocessing of the card, as at run time.
        card: of the file.
        threads: CPU threads; None takes every core.
        progress: called after each image.

    Raises:
        InputError: An image cannot be read or does not fit the network.
        DataError: There is no image, or a value is not finite.
    """
    model = ModelProto()
    model.CopyFrom(trunk)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors)
    session = open_session(model, threads=threads)
    found = {name: Histogram() for name in tensors}
    count = 0
    for path in paths:
        for name, values in zip(tensors, session.run(None, {INPUT: canvas_of(path, card=card)}), strict=True):
            found[name].add(values)
        count += 1
        progress()
    if not count:
        raise DataError("there is no image to calibrate on: --images takes a folder of images like those of the task")
    return found


def choose_scales(
    plan: Plan, histograms: dict[str, Histogram], *, method: Method, kind: Kind = "int8"
) -> dict[str, float]:
    """The scale of each group of a plan.

    Args:
        plan: what is quantized.
        histograms: of each of its tensors.
        method: see `largest_value`.
        kind: of the encoding.

    Raises:
        ConfigError: The method is not for this encoding.
    """
    check_methods([method], kind=kind)
    largest = LARGEST[kind]
    return {
        name: largest_value(
            reduce(Histogram.merge, (histograms[one] for one in group.tensors)),
            method=method,
            levels=int(LARGEST["int8"]),
        )
        / largest
        for name, group in plan.groups.items()
    }
