"""Which tensors of a network are quantized, and which of them share a scale.

Those that a quantized convolution reads, and those that it makes, each once, where it is made: after the ReLU where one
follows. A sum of two of them is then one of whole numbers, where a convolution reads it. Tensors share a scale
where a module (a convolution's weight) runs several times, as a head does on its levels, and where a node passes values
through: MaxPool, nearest Resize. So a group of tensors stands for one point of the training network.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ld_runtime.errors import ConfigError
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from onnx import GraphProto, NodeProto

# The detector is a part of the exported `HeadMaps`.
EXPORT_PREFIX, WEIGHT_SUFFIX = "model.", ".weight"


@dataclass(frozen=True)
class Group:
    """Tensors that share a scale.

    Args:
        name: of the first module that reads them, and `.input`; of the one that makes them, and `.output`, where none
            reads them; of the tensor where neither does.
        tensors: in the order of the graph.
        unsigned: none of them is ever negative.
    """

    name: str
    tensors: tuple[str, ...]
    unsigned: bool


@dataclass(frozen=True)
class Module:
    """A convolution of the training network: its nodes share a weight.

    Args:
        name: as in the training network, such as `bbox_head.gfl_cls`.
        weight: name of the initializer.
        nodes: indices of its nodes.
        inputs: the tensors that it reads.
        outputs: the tensors, after a ReLU where one follows, that it makes.
    """

    name: str
    weight: str
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is quantized: modules by name, groups by name, and the group of each tensor."""

    modules: dict[str, Module]
    groups: dict[str, Group]
    group_of: dict[str, str]

    def input_group(self, module: str) -> Group:
        """Of the tensors that a module reads."""
        return self.groups[self.group_of[self.modules[module].inputs[0]]]

    def output_group(self, module: str) -> Group:
        """Of the tensors that a module makes."""
        return self.groups[self.group_of[self.modules[module].outputs[0]]]


def make_plan(graph: GraphProto, *, keep_float: Collection[str] = ()) -> Plan:
    """Finds what to quantize.

    Args:
        graph: of a network, in topological order, as ONNX demands it.
        keep_float: names of modules whose convolutions stay as they are.

    Raises:
        ConfigError: A name in `keep_float` is of no module, or nothing is left to quantize.
    """
    modules = find_modules(graph)
    if unknown := sorted(set(keep_float) - set(modules)):
        message = f"no convolution is called {', '.join(unknown)}"
        raise ConfigError(f"{message}{nearest(unknown[0], modules) or ';'} there are: {', '.join(modules)}")
    modules = {name: module for name, module in modules.items() if name not in keep_float}
    if not modules:
        raise ConfigError("no convolution is left to quantize: name fewer in --keep-float")
    same = _Same()
    for module in modules.values():
        for tensors in (module.inputs, module.outputs):
            for tensor in tensors:
                same.join(tensors[0], tensor)
    for node in graph.node:
        first = node.input[0] if node.input else ""
        if passes_through(node) and first in same:
            same.join(first, node.output[0])
    return Plan(modules, *_groups(same, graph, modules))


def find_modules(graph: GraphProto) -> dict[str, Module]:
    """Every two-dimensional convolution with a constant weight, by its name in the training network."""
    constants = {one.name: len(one.dims) for one in graph.initializer}
    follow = _Follow(graph)
    by_weight: dict[str, list[int]] = defaultdict(list)
    for index, node in enumerate(graph.node):
        if node.op_type == "Conv" and constants.get(node.input[1]) == 4:
            by_weight[node.input[1]].append(index)
    return {
        module_name(weight): Module(
            name=module_name(weight),
            weight=weight,
            nodes=tuple(indices),
            inputs=tuple(graph.node[index].input[0] for index in indices),
            outputs=tuple(follow.after_activation(graph.node[index]) for index in indices),
        )
        for weight, indices in by_weight.items()
    }


def module_name(weight: str) -> str:
    """`model.backbone.conv1.weight` -> `backbone.conv1`."""
    return weight.removesuffix(WEIGHT_SUFFIX).removeprefix(EXPORT_PREFIX)


def passes_through(node: NodeProto) -> bool:
    """Whether the values that a node gives are among those that it takes."""
    if node.op_type == "MaxPool":
        return True
    modes = [attribute.s for attribute in node.attribute if attribute.name == "mode"]
    return node.op_type == "Resize" and modes in ([], [b"nearest"])


def is_activation(node: NodeProto, constants: Mapping[str, float]) -> bool:
    """Whether a node is a ReLU, or a Clip from 0 on: what it gives is never negative.

    Args:
        node: any.
        constants: values of the graph's scalar initializers.
    """
    if node.op_type == "Relu":
        return True
    return node.op_type == "Clip" and len(node.input) > 1 and constants.get(node.input[1], -1.0) >= 0


class _Follow:
    """Who reads a tensor."""

    def __init__(self, graph: GraphProto) -> None:
        self.readers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = {one.name for one in graph.output}
        self.constants = scalar_constants(graph)

    def after_activation(self, node: NodeProto) -> str:
        """What a node gives, after its activation where nothing else reads what lies between."""
        made: str = node.output[0]
        readers = self.readers[made]
        if len(readers) == 1 and made not in self.outputs and is_activation(readers[0], self.constants):
            return str(readers[0].output[0])
        return made


class _Same:
    """Disjoint sets of tensors."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._parent

    def find(self, name: str) -> str:
        while self._parent[name] != name:
            name = self._parent[name]
        return name

    def join(self, one: str, other: str) -> None:
        for name in (one, other):
            self._parent.setdefault(name, name)
        self._parent[self.find(other)] = self.find(one)

    def sets(self) -> list[set[str]]:
        found: dict[str, set[str]] = defaultdict(set)
        for name in self._parent:
            found[self.find(name)].add(name)
        return list(found.values())


def scalar_constants(graph: GraphProto) -> dict[str, float]:
    """Values of the float scalars among the initializers."""
    from onnx import TensorProto, numpy_helper

    return {
        one.name: float(numpy_helper.to_array(one).reshape(()))
        for one in graph.initializer
        if one.data_type == TensorProto.FLOAT and list(one.dims) in ([], [1])
    }


def _groups(same: _Same, graph: GraphProto, modules: dict[str, Module]) -> tuple[dict[str, Group], dict[str, str]]:
    order = {name: index for index, node in enumerate(graph.node) for name in node.output}
    unsigned = _never_negative(graph)
    first_reader: dict[str, str] = {}
    maker: dict[str, str] = {}
    for module in modules.values():
        first_reader.setdefault(same.find(module.inputs[0]), f"{module.name}.input")
        maker.setdefault(same.find(module.outputs[0]), f"{module.name}.output")
    groups, group_of = {}, {}
    for tensors in same.sets():
        root = same.find(next(iter(tensors)))
        name = first_reader.get(root) or maker.get(root) or root
        ordered = tuple(sorted(tensors, key=lambda one: (order.get(one, -1), one)))
        groups[name] = Group(name, ordered, unsigned=tensors <= unsigned)
        group_of.update(dict.fromkeys(ordered, name))
    return groups, group_of


def _never_negative(graph: GraphProto) -> set[str]:
    found: set[str] = set()
    constants = scalar_constants(graph)
    for node in graph.node:
        passed = passes_through(node) and node.input[0] in found
        if passed or node.op_type == "Sigmoid" or is_activation(node, constants):
            found.update(node.output)
    return found
