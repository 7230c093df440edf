"""What each layer loses when it alone is quantized, and which layers therefore stay float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from ld_export.quantize_calibration import choose_scales, open_session
from ld_export.quantize_graph import insert_quantization
from ld_export.quantize_plan import find_modules, make_plan
from ld_runtime.onnx_file import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ld_export.quantize_error import FloatReference, MapError
    from ld_export.quantize_graph import Kind
    from ld_export.quantize_scales import Histogram, Method

# A layer that has less of the network's error than this is not worth a float island between quantized neighbours.
WORTH_FLOAT = 0.08


@dataclass(frozen=True)
class LayerSensitivity:
    """A layer quantized alone.

    Args:
        name: of its module in the training network.
        error: of the maps.
        error_share: of the squared errors of all layers, the mean of the shares in pixels and in score.
        multiply_add_share: of the network's convolutions.
    """

    name: str
    error: MapError
    error_share: float
    multiply_add_share: float


def measure_sensitivity(
    trunk: ModelProto,
    *,
    reference: FloatReference,
    histograms: dict[str, Histogram],
    method: Method,
    kind: Kind = "int8",
    progress: Callable[[], object] = lambda: None,
) -> list[LayerSensitivity]:
    """Quantizes each module of a network alone: its input, weight and output.

    Args:
        trunk: the float network.
        reference: its maps on some images.
        histograms: of each tensor that the plan of the whole network has.
        method: of the scales.
        kind: of the encoding.
        progress: called after each module.

    Returns:
        The layers, the most sensitive first.
    """
    modules = find_modules(trunk.graph)
    cost = multiply_adds(trunk, canvas=reference.canvases[0])
    errors = {}
    for name in modules:
        plan = make_plan(trunk.graph, keep_float=set(modules) - {name})
        scales = choose_scales(plan, histograms, method=method, kind=kind)
        errors[name] = reference.error(insert_quantization(trunk, plan=plan, scales=scales, kind=kind))
        progress()
    edge = sum(one.edge_px**2 for one in errors.values()) or 1.0
    score = sum(one.score**2 for one in errors.values()) or 1.0
    layers = [
        LayerSensitivity(
            name=name,
            error=error,
            error_share=(error.edge_px**2 / edge + error.score**2 / score) / 2,
            multiply_add_share=cost[name] / sum(cost.values()),
        )
        for name, error in errors.items()
    ]
    return sorted(layers, key=lambda one: (-one.error_share, one.name))


def choose_float(layers: Sequence[LayerSensitivity], *, budget: float) -> tuple[str, ...]:
    """The layers that stay float: those that take most of the error with them for their arithmetic.

    Args:
        layers: as measured.
        budget: share of the convolutions' multiply-adds that may stay float, from 0 to 1.

    Returns:
        Names of layers with `WORTH_FLOAT` of the error or more, the best error share per arithmetic first, as far as
        the budget goes; one that does not fit is passed over.
    """
    kept, left = [], budget
    worth = [one for one in layers if one.error_share >= WORTH_FLOAT]
    for layer in sorted(worth, key=lambda one: one.multiply_add_share / one.error_share):
        if layer.multiply_add_share <= left:
            kept.append(layer.name)
            left -= layer.multiply_add_share
    return tuple(kept)


def multiply_adds(trunk: ModelProto, *, canvas: NDArray[np.uint8]) -> dict[str, int]:
    """Multiply-adds of each module on a canvas uint8 (1, H, W, 3)."""
    modules = find_modules(trunk.graph)
    weights = {one.name: numpy_helper.to_array(one).shape for one in trunk.graph.initializer}
    model = ModelProto()
    model.CopyFrom(trunk)
    made = {name: [trunk.graph.node[index].output[0] for index in one.nodes] for name, one in modules.items()}
    names = [output for outputs in made.values() for output in outputs]
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    sizes = dict(zip(names, (one.size for one in open_session(model).run(names, {INPUT: canvas})), strict=True))
    return {
        name: sum(sizes[output] for output in made[name]) * int(np.prod(weights[one.weight][1:]))
        for name, one in modules.items()
    }
