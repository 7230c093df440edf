"""The TensorRT plugin, called as TensorRT calls it, against the headers in TENSORRT_INCLUDE.

TensorRT itself is not needed: the kernels are emulated. `make native-check` runs this with every version of the headers
and records it in docs/results/native_build.json, which test_native_build.py holds to the sources.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from ld_export.gfl_function import tail_model
from ld_export.nms_function import nms_model
from ld_export.rotated_nms_function import rotated_nms_model
from ld_runtime.cluster_nms import cluster_diou_nms_numpy
from ld_runtime.gfl_candidates import gfl_candidates, rotated_gfl_candidates
from ld_runtime.model_card import CandidateRule, NmsSettings
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy, rotated_iou
from tests.gpu.test_gfl_kernels import Maps
from tests.gpu.test_nms_kernels import assert_is
from tests.gpu.test_rotated_kernels import assert_is as assert_rotated
from tests.gpu.test_rotated_kernels import maps as rotated_maps
from tests.native.plugin_host import (
    CHW2,
    FLOAT16_FIELD,
    FLOAT32_FIELD,
    FLOAT64_FIELD,
    INT32_FIELD,
    LINEAR,
    TYPES,
    Attribute,
    Plugin,
    PluginHost,
    build_probe,
)
from tests.runtime.conftest import CARD
from tests.runtime.native_cases import Scene, crowd
from tests.runtime.rotated_cases import crowd as rotated_crowd

INCLUDE = os.environ.get("TENSORRT_INCLUDE", "")
if not (Path(INCLUDE) / "NvInfer.h").is_file() or not shutil.which("g++"):
    pytest.skip(
        "TENSORRT_INCLUDE names no folder with NvInfer.h; recorded runs: docs/results/native_build.json",
        allow_module_level=True,
    )

NMS = [
    *(Attribute(name, FLOAT32_FIELD, (value,)) for name, value in (("iou_threshold", 0.6), ("distance_exponent", 0.8))),
    *(Attribute(name, FLOAT32_FIELD, (value,)) for name, value in (("vote_threshold", 0.7), ("vote_sigma", 0.025))),
    Attribute("score_threshold", FLOAT32_FIELD, (0.05,)),
    Attribute("max_detections", INT32_FIELD, (60,)),
]
GFL = [
    *NMS,
    Attribute("strides", INT32_FIELD, (8, 16, 32)),
    Attribute("per_level_top_k", INT32_FIELD, (100,)),
    Attribute("pre_nms_top_k", INT32_FIELD, (150,)),
]
OPS = {
    "ClusterDIoUNMS": NMS,
    "GFLDetect": GFL,
    "RotatedClusterNMS": [one for one in NMS if one.name != "distance_exponent"],
    "RotatedGFLDetect": [one for one in GFL if one.name != "distance_exponent"],
}
NMS_OPS = ("ClusterDIoUNMS", "RotatedClusterNMS")
NUM_INPUTS = {op: 3 if op in NMS_OPS else 6 for op in OPS}
OUTPUT_TYPES = ["int32", "float32", "float32", "int64"]
SETTINGS = NmsSettings(max_detections=60)
RULE = CandidateRule(per_level_top_k=100, pre_nms_top_k=150)
MAPS = [(2, 3, 9, 13), (2, 3, 5, 7), (2, 3, 3, 4), (2, 20, 9, 13), (2, 20, 5, 7), (2, 20, 3, 4)]
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "ClusterDIoUNMS": [(2, 9, 4), (2, 9), (2, 9)],
    "GFLDetect": MAPS,
    "RotatedClusterNMS": [(2, 9, 5), (2, 9), (2, 9)],
    "RotatedGFLDetect": MAPS,  # 20 channels are five of four bins
}
ROTATED = RotatedNmsSettings(iou_threshold=0.6, max_detections=60)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> PluginHost:
    return PluginHost(build_probe(Path(INCLUDE), tmp_path_factory.mktemp("probe")))


@pytest.fixture(params=list(OPS))
def op(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def plugin(host: PluginHost, op: str) -> Plugin:
    found = host.create(op, OPS[op])
    assert found is not None, host.log()
    return found


def test_version_of_the_headers_is_one_that_is_meant(host: PluginHost) -> None:
    assert (10, 13) <= host.version < (12, 0)


def test_creators(host: PluginHost, op: str) -> None:
    assert host.advertised(op) == [(one.name, one.type) for one in OPS[op]]
    names: bytes = host.library.probe_names(host.creator(op), None)
    assert names.decode() == f"{op} 1 ld_deploy"
    assert host.creator("GFLCandidates") is None


def test_names_and_copies(plugin: Plugin, op: str) -> None:
    for one in (plugin, plugin.copy("clone"), plugin.copy("attach")):
        assert one.names() == f"{op} 1 ld_deploy"
        assert one.serialized() == plugin.serialized()
        assert one.timing_cache_id() == plugin.timing_cache_id()


def test_serialised_fields_make_the_same_plugin(host: PluginHost, plugin: Plugin, op: str) -> None:
    fields = plugin.serialized()
    assert [(one.name, one.type) for one in fields] == [(one.name, one.type) for one in OPS[op]]
    for field, given in zip(fields, OPS[op], strict=True):
        np.testing.assert_array_equal(field.values, np.float32(given.values))
    again = host.create(op, fields, at_runtime=True)
    assert again is not None
    assert again.serialized() == fields


def test_timing_cache_tells_settings_apart(host: PluginHost, op: str) -> None:
    ids = set()
    for index, one in enumerate(OPS[op]):
        nearby = replace(one, values=tuple(np.nextafter(np.float32(v), np.float32(9)).item() for v in one.values))
        if one.type == INT32_FIELD:
            nearby = replace(one, values=tuple(v + 1 for v in one.values))
        changed = host.create(op, [*OPS[op][:index], nearby, *OPS[op][index + 1 :]])
        assert changed is not None
        ids.add(changed.timing_cache_id())
    unchanged = host.create(op, OPS[op])
    assert unchanged is not None
    assert len(ids | {unchanged.timing_cache_id()}) == len(OPS[op]) + 1


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("iou_threshold", None, "attribute iou_threshold, one value of float32, is missing"),
        ("iou_threshold", (FLOAT64_FIELD, (0.6,)), "iou_threshold must be one value of float32, got 1 of float64"),
        ("iou_threshold", (FLOAT16_FIELD, (0.6,)), "iou_threshold must be one value of float32, got 1 of float16"),
        ("iou_threshold", (FLOAT32_FIELD, (0.6, 0.7)), "must be one value of float32, got 2 of float32"),
        ("iou_threshold", (FLOAT32_FIELD, ()), "must be one value of float32, got 0 of float32"),
        ("score_threshold", (FLOAT32_FIELD, (float("nan"),)), "attribute score_threshold is not finite"),
        ("vote_sigma", (FLOAT32_FIELD, (0.0,)), "attribute vote_sigma must be above 0"),
        ("max_detections", (FLOAT32_FIELD, (60.0,)), "max_detections must be one value of int32, got 1 of float32"),
        ("max_detections", (INT32_FIELD, (0,)), "attribute max_detections must be 1 or more"),
        ("strides", None, "attribute strides, one or more values of int32, is missing"),
        ("strides", (INT32_FIELD, ()), "strides must be one or more values of int32, got 0 of int32"),
        ("strides", (INT32_FIELD, (8, 0)), "attribute strides must be above 0, got 0"),
        ("strides", (INT32_FIELD, (8,) * 9), "at most 8 levels, got 9 strides"),
        ("per_level_top_k", (INT32_FIELD, (0,)), "attribute per_level_top_k must be 1 or more"),
        ("pre_nms_top_k", (INT32_FIELD, (-1,)), "attribute pre_nms_top_k must be 1 or more"),
    ],
)
def test_fields_are_checked(
    host: PluginHost, name: str, changed: tuple[int, tuple[float, ...]] | None, message: str
) -> None:
    fields = [one for one in GFL if one.name != name]
    if changed is not None:
        fields.append(Attribute(name, *changed))
    host.log()
    assert host.create("GFLDetect", fields) is None
    assert message in host.log()


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (Attribute("beta", FLOAT32_FIELD, (1.0,)), "there is no attribute beta"),
        (NMS[0], "attribute iou_threshold is given twice"),
    ],
)
def test_no_other_fields(host: PluginHost, op: str, extra: Attribute, message: str) -> None:
    host.log()
    assert host.create(op, [*OPS[op], extra]) is None
    assert f"ld_deploy::{op}: {message}: export the model again" in host.log()
    assert host.create(op, []) is None
    assert "is missing" in host.log()


def test_outputs(plugin: Plugin, op: str) -> None:
    assert plugin.call("num_outputs") == 4
    inputs = ["float16"] * NUM_INPUTS[op]
    assert plugin.output_types(inputs) == [TYPES[one] for one in OUTPUT_TYPES]
    numbers = 5 if op.startswith("Rotated") else 4
    assert plugin.output_shapes(*SHAPES[op]) == [(2, 1), (2, 60, numbers), (2, 60), (2, 60)]
    dynamic = [(-1, *shape[1:]) for shape in SHAPES[op]]
    assert plugin.output_shapes(*dynamic) == [(-1, 1), (-1, 60, numbers), (-1, 60), (-1, 60)]


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_formats(plugin: Plugin, op: str, kind: str) -> None:
    inputs = NUM_INPUTS[op]
    types = [*[kind] * inputs, *OUTPUT_TYPES]
    if op in NMS_OPS:
        types[2] = "int64"
    good = [(one, LINEAR) for one in types]
    for position in range(inputs + 4):
        assert plugin.supports(position, good, inputs=inputs)
        accepted = set()
        for other in TYPES:
            tensors = [*good[:position], (other, LINEAR), *good[position + 1 :]]
            if plugin.supports(position, tensors, inputs=inputs):
                accepted.add(other)
        assert accepted == ({"float32", "float16"} if position == 0 else {types[position]})
        chunked = [*good[:position], (types[position], CHW2), *good[position + 1 :]]
        assert not plugin.supports(position, chunked, inputs=inputs)


def test_sizes(host: PluginHost, plugin: Plugin, op: str) -> None:
    shapes = SHAPES[op]
    for name in ("configure", "on_shape_change"):
        assert plugin.of_shapes(name, *shapes) == 0
    small = plugin.of_shapes("workspace", *shapes)
    large = plugin.of_shapes("workspace", *((8, *shape[1:]) for shape in shapes))
    assert 0 < small < large
    host.log()
    assert plugin.of_shapes("configure", *shapes[:-1]) != 0
    assert f"needs {NUM_INPUTS[op]} inputs, got {NUM_INPUTS[op] - 1}" in host.log()
    assert plugin.of_shapes("configure", *((65536, *shape[1:]) for shape in shapes)) != 0
    assert "beyond the limits of its kernels" in host.log()


@pytest.mark.parametrize(
    ("op", "index", "shape"),
    [
        ("ClusterDIoUNMS", 0, (2, 9, 5)),
        ("ClusterDIoUNMS", 0, (2, 36)),
        ("ClusterDIoUNMS", 1, (2, 8)),
        ("ClusterDIoUNMS", 2, (1, 9)),
        ("GFLDetect", 0, (2, 4, 9, 13)),
        ("GFLDetect", 1, (2, 3, 5, 8)),
        ("GFLDetect", 2, (3, 3, 3, 4)),
        ("GFLDetect", 3, (2, 18, 9, 13)),
        ("GFLDetect", 4, (2, 24, 5, 7)),
        ("GFLDetect", 5, (2, 20, 12)),
        ("RotatedClusterNMS", 0, (2, 9, 4)),
        ("RotatedGFLDetect", 3, (2, 16, 9, 13)),
    ],
)
def test_shapes_must_go_together(host: PluginHost, plugin: Plugin, op: str, index: int, shape: tuple[int, ...]) -> None:
    shapes = [*SHAPES[op][:index], shape, *SHAPES[op][index + 1 :]]
    host.log()
    for name in ("configure", "on_shape_change"):
        assert plugin.of_shapes(name, *shapes) != 0
        assert ", ".join(map(str, shape)) in host.log()
    assert plugin.of_shapes("workspace", *shapes) == 0


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_nms_on_the_host(host: PluginHost, kind: type[np.floating[Any]]) -> None:
    plugin = host.create("ClusterDIoUNMS", NMS)
    assert plugin is not None
    scenes = [crowd(seed, 200) for seed in range(3)]
    boxes, scores, labels = (np.stack(one) for one in zip(*scenes, strict=True))
    found = plugin.enqueue(boxes.astype(kind), scores.astype(kind), labels, most=60)
    for image in range(3):
        inputs: Any = boxes[image].astype(kind), scores[image].astype(kind), labels[image]
        in_float32 = inputs[0].astype(np.float32), inputs[1].astype(np.float32), inputs[2]
        assert_is(found, image, Scene(*cluster_diou_nms_numpy(*in_float32, settings=SETTINGS)))
    assert min(found.num_detections) > 10


@pytest.mark.parametrize("half", [False, True])
def test_gfl_on_the_host(host: PluginHost, half: bool) -> None:
    plugin = host.create("GFLDetect", GFL)
    assert plugin is not None
    maps = Maps(1, batch=2)
    if half:
        maps.halved()
    found = plugin.enqueue(*maps.class_logits, *maps.edge_logits, most=60)
    for image in range(2):
        candidates = gfl_candidates(
            *([one[image].astype(np.float32) for one in kind] for kind in (maps.class_logits, maps.edge_logits)),
            strides=(8, 16, 32),
            rule=RULE,
            score_threshold=SETTINGS.score_threshold,
        )
        expected = Scene(*cluster_diou_nms_numpy(*candidates, settings=SETTINGS))
        assert_is(found, image, expected, atol=1e-3)
    assert min(found.num_detections) > 10


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_rotated_nms_on_the_host(host: PluginHost, kind: type[np.floating[Any]]) -> None:
    plugin = host.create("RotatedClusterNMS", OPS["RotatedClusterNMS"])
    assert plugin is not None
    boxes, scores, labels = (
        np.stack(one) for one in zip(*(rotated_crowd(seed, 200) for seed in range(3)), strict=True)
    )
    inputs = boxes.astype(kind), scores.astype(kind), labels
    found = plugin.enqueue(*inputs, most=60, numbers=5)
    for image in range(3):
        in_float32 = inputs[0][image].astype(np.float32), inputs[1][image].astype(np.float32), labels[image]
        assert_rotated(found, image, Scene(*rotated_cluster_nms_numpy(*in_float32, settings=ROTATED)))
    assert min(found.num_detections) > 10


def test_rotated_gfl_on_the_host(host: PluginHost) -> None:
    plugin = host.create("RotatedGFLDetect", OPS["RotatedGFLDetect"])
    assert plugin is not None
    classes, edges = rotated_maps(1)
    found = plugin.enqueue(*classes, *edges, most=60, numbers=5)
    for image in range(2):
        candidates = rotated_gfl_candidates(
            *([one[image] for one in kind] for kind in (classes, edges)),
            strides=(8, 16, 32),
            rule=RULE,
            score_threshold=ROTATED.score_threshold,
        )
        expected = rotated_cluster_nms_numpy(*candidates, settings=ROTATED)
        count = len(expected[1])
        assert found.num_detections[image] == count
        assert (rotated_iou(found.boxes[image, :count], expected[0]).diagonal() > 0.9999).all()
        np.testing.assert_allclose(found.scores[image, :count], expected[1], atol=1e-6)
    assert min(found.num_detections) > 5


# ---- in a real registry ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(host: PluginHost) -> str:
    """The shipped library where it was built (LD_DEPLOY_PLUGIN), else the one of this test: the same sources."""
    return os.environ.get("LD_DEPLOY_PLUGIN") or host.library._name


def in_registry(*arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("tensorrt_rtx")
    command = [sys.executable, str(Path(__file__).with_name("in_registry.py")), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_registry_of_tensorrt_rtx(library: str) -> None:
    done = in_registry(library)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    names = {FLOAT32_FIELD: "FLOAT32", INT32_FIELD: "INT32"}
    for op, attributes in OPS.items():
        assert found[op] == {
            "fields": [[one.name, names[one.type]] for one in attributes],
            "creates": True,
            "refuses_another_type": True,
            "refuses_another_length": True,
            "in_other_namespaces": [],
        }
    assert "must be one value of int32, got 1 of float32" in done.stderr + done.stdout


@pytest.mark.parametrize("op", list(OPS))
def test_parser_takes_the_plugin_for_an_exported_node(library: str, op: str, tmp_path: Path) -> None:
    assert isinstance(CARD.nms, NmsSettings)
    rotated = replace(CARD, nms=ROTATED, nms_kind="rotated_cluster", box_format="cxcywha")
    model = {
        "GFLDetect": lambda: tail_model(card=CARD, strides=(8, 16, 32), classes=3, bins=5),
        "RotatedGFLDetect": lambda: tail_model(card=rotated, strides=(8, 16, 32), classes=3, bins=5),
        "ClusterDIoUNMS": lambda: nms_model(settings=SETTINGS),
        "RotatedClusterNMS": lambda: rotated_nms_model(settings=ROTATED),
    }[op]()
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = in_registry(library, str(path))
    assert f"Successfully created plugin: {op}" in done.stdout
