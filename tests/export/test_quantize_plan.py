from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import helper

from ld_export.quantize_plan import find_modules, make_plan, module_name
from ld_runtime.errors import ConfigError
from tests.export.quantize_networks import conv, network, residual, two_convs


def groups(keep_float: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    return {name: one.tensors for name, one in make_plan(residual().graph, keep_float=keep_float).groups.items()}


def test_two_convolutions() -> None:
    plan = make_plan(two_convs().graph)
    assert list(plan.modules) == ["one", "two"]
    assert {name: (one.tensors, one.unsigned) for name, one in plan.groups.items()} == {
        "one.input": (("x",), False),
        "two.input": (("b",), True),  # after the ReLU: what lies before it is nowhere stored
        "two.output": (("y",), False),
    }
    assert plan.output_group("one") == plan.input_group("two")


def test_what_shares_a_scale() -> None:
    assert groups() == {
        "stem.input": ("x",),
        "block.conv.input": ("stem_relu", "pooled"),  # MaxPool
        "block.conv.output": ("branch",),
        "lateral.input": ("block",),  # the sum after its ReLU
        # Resize, and one module that reads two levels
        "head.input": ("coarse", "fine", "level_0"),
        "other.output": ("other_out",),
        "out.input": ("merged",),
        "head.output": ("map_0", "map_1"),
    }


def test_signs() -> None:
    plan = make_plan(residual().graph)
    assert {name for name, one in plan.groups.items() if one.unsigned} == {"block.conv.input", "lateral.input"}


def test_one_signed_tensor_makes_its_group_signed() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        conv("positive", "a", module="shared"),
        conv("x", "b", module="shared"),
    ]
    model = network(nodes, weights={"model.shared.weight": np.ones((1, 1, 1, 1))}, outputs=["a", "b"])
    (read, made) = make_plan(model.graph).groups.values()
    assert (read.tensors, read.unsigned) == (("x", "positive"), False)
    assert (made.tensors, made.unsigned) == (("a", "b"), False)


@pytest.mark.parametrize(("low", "unsigned"), [(0.0, True), (-1.0, False)])
def test_a_clip_is_a_relu_where_it_starts_at_zero(low: float, unsigned: bool) -> None:
    nodes = [conv("x", "a", module="one"), helper.make_node("Clip", ["a", "low", "high"], ["b"])]
    nodes += [conv("b", "y", module="two")]
    weights = {f"model.{name}.weight": np.ones((1, 1, 1, 1)) for name in ("one", "two")}
    plan = make_plan(network(nodes, weights={**weights, "low": low, "high": 6.0}, outputs=["y"]).graph)
    assert plan.groups["two.input"].unsigned == unsigned
    assert ("a" in plan.group_of) is not unsigned


def test_a_relu_that_others_pass_by_is_not_swallowed() -> None:
    nodes = [
        conv("x", "a", module="one"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["a"], ["c"]),
    ]
    model = network(nodes, weights={"model.one.weight": np.ones((1, 1, 1, 1))}, outputs=["b", "c"])
    assert make_plan(model.graph).modules["one"].outputs == ("a",)
    given = network(nodes[:2], weights={"model.one.weight": np.ones((1, 1, 1, 1))}, outputs=["a", "b"])
    assert make_plan(given.graph).modules["one"].outputs == ("a",)


def test_layers_that_stay_float() -> None:
    found = groups(keep_float=("stem", "out"))
    assert "stem.input" not in found
    assert found["other.input"] == ("x",)  # another module reads it
    assert found["block.conv.input"] == ("pooled",)  # quantized after the pooling: fewer values
    assert "out.input" not in found  # nothing that is quantized reads the sum


def test_unknown_names_and_nothing_left() -> None:
    with pytest.raises(ConfigError, match=r"no convolution is called three; there are: one, two"):
        make_plan(two_convs().graph, keep_float=("three",))
    with pytest.raises(ConfigError, match="no convolution is left to quantize"):
        make_plan(two_convs().graph, keep_float=("one", "two"))


def test_modules_by_weight() -> None:
    head = find_modules(residual().graph)["head"]
    assert (head.inputs, head.outputs) == (("level_0", "coarse"), ("map_0", "map_1"))
    assert re.fullmatch(r"model\.head\.weight", head.weight)
    assert module_name("model.neck.conv.weight") == "neck.conv"
    assert module_name("foreign") == "foreign"
