"""The ONNX function of the rotated NMS in ONNX Runtime against the numpy twin, and built by TensorRT-RTX on the CPU."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ld_export.nms_function import INPUTS, OUTPUTS
from ld_export.nms_text import CHUNK
from ld_export.onnx_check import open_session
from ld_export.rotated_nms_function import rotated_nms_function, rotated_nms_model
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy, rotated_iou
from tests.runtime.rotated_cases import (
    F32,
    Scene,
    angle_between,
    apart_pairs,
    chain,
    crowd,
    scene_of,
    written_otherwise,
)

MOST = 100
NAN, INF = float("nan"), float("inf")


@cache
def session(options: RotatedNmsSettings) -> Any:
    return open_session(rotated_nms_model(settings=options))


def run_batch(boxes: Any, scores: Any, labels: Any, options: RotatedNmsSettings) -> list[NDArray[Any]]:
    outputs: list[NDArray[Any]] = session(options).run(
        list(OUTPUTS), dict(zip(INPUTS, (boxes, scores, labels), strict=True))
    )
    return outputs


def run(scene: Scene, **changed: Any) -> Scene:
    """One image, without the padding, which is checked."""
    options = RotatedNmsSettings(**{"max_detections": MOST, **changed})
    count, boxes, scores, labels = run_batch(*(one[None] for one in scene), options)
    n = int(count[0, 0])
    assert boxes.shape == (1, options.max_detections, 5)
    assert not boxes[0, n:].any()
    assert not scores[0, n:].any()
    assert (labels[0, n:] == -1).all()
    return Scene(boxes[0, :n], scores[0, :n], labels[0, :n])


def assert_close(found: Scene, expected: Scene, *, atol: float = 1e-2) -> None:
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.boxes[:, :4], expected.boxes[:, :4], atol=atol, rtol=1e-6)
    if len(expected.scores):
        assert angle_between(found.boxes[:, 4], expected.boxes[:, 4].astype(np.float64)).max() < 1e-4
        assert (-F32(np.pi / 2) <= found.boxes[:, 4]).all()
        assert (found.boxes[:, 4] < F32(np.pi / 2)).all()


def assert_like_twin(scene: Scene, *, atol: float = 1e-2, **changed: Any) -> int:
    options = RotatedNmsSettings(**{"max_detections": MOST, **changed})
    expected = Scene(*rotated_cluster_nms_numpy(*scene, settings=options))
    assert_close(run(scene, **changed), expected, atol=atol)
    return len(expected.scores)


def clear_of(scene: Scene, *, near: float, options: RotatedNmsSettings) -> bool:
    """Whether no pair's IoU is near a threshold, and no pair of voters near the angle where the writing changes."""
    inside = np.isfinite(scene.boxes).all(axis=1)
    iou = rotated_iou(scene.boxes[inside], scene.boxes[inside])
    away = min(np.abs(iou - one).min(initial=1) for one in (options.iou_threshold, options.vote_threshold))
    angle = scene.boxes[inside, 4].astype(np.float64)
    turn = np.abs((angle[:, None] - angle) % (np.pi / 2) - np.pi / 4)
    return bool(away > near and (turn > near)[iou > options.vote_threshold].all())


def test_contract() -> None:
    options = RotatedNmsSettings(max_detections=7)
    model = rotated_nms_model(settings=options, candidates=40)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.domain, node.op_type) == ("ld_deploy", "RotatedClusterNMS")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert attributes.pop("plugin_namespace") == b"ld_deploy"
    assert attributes.pop("plugin_version") == b"1"
    assert attributes == pytest.approx(asdict(options))
    function = rotated_nms_function()
    assert set(function.attribute) == {one.name for one in node.attribute}

    def operators(nodes: Any) -> set[str]:
        found = {one.op_type for one in nodes}
        bodies = [attribute.g.node for one in nodes for attribute in one.attribute if attribute.HasField("g")]
        return found.union(*(operators(body) for body in bodies))

    assert operators(function.node).isdisjoint({"MatMul", "Gemm", "NonZero", "Einsum"})
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in inferred.graph.output
    }
    assert shapes == {
        "num_detections": ["batch", 1],
        "boxes": ["batch", 7, 5],
        "scores": ["batch", 7],
        "labels": ["batch", 7],
    }
    types = [one.type for one in session(options).get_outputs()]
    assert types == ["tensor(int32)", "tensor(float)", "tensor(float)", "tensor(int64)"]


@pytest.mark.parametrize("quarters", [-1, 0, 1, 2])
def test_a_vote_by_hand(quarters: int) -> None:
    # 100 x 50 at 30 degrees; the other lies 4 px further along the long side: IoU 96 / 104 in any frame.
    cos, sin = math.cos(math.pi / 6), math.sin(math.pi / 6)
    rows = scene_of((0, 0, 100, 50, math.pi / 6, 0.8, 3), (4 * cos, 4 * sin, 100, 50, math.pi / 6, 0.6, 3))
    rows.boxes[1:] = written_otherwise(rows.boxes[1:], np.array([quarters]))
    weight = math.exp(-((8 / 104) ** 2) / 0.025) * 0.6
    shift = 4 * weight / (0.8 + weight)
    boxes, scores, labels = run(rows)
    np.testing.assert_allclose(boxes, [[shift * cos, shift * sin, 100, 50, math.pi / 6]], atol=1e-4)
    np.testing.assert_array_equal(scores, np.array([0.8], F32))
    np.testing.assert_array_equal(labels, [3])


@pytest.mark.parametrize(("h", "kept", "moved"), [(1.0, 2, False), (1.01, 1, True), (0.99, 2, False)])
def test_thresholds_are_strict(h: float, kept: int, moved: bool) -> None:
    # Concentric: IoU h / 2, exact in float32 at angle 0.
    rows = scene_of((7, 9, 4, 2, 0, 0.9, 0), (7, 9, 4, h, 0, 0.8, 0))
    assert len(run(rows, iou_threshold=0.5).scores) == kept
    assert (run(rows, iou_threshold=0.9, vote_threshold=0.5).boxes[0, 3] < 2) == moved


@pytest.mark.parametrize(("score", "kept"), [(0.05, 0), (np.nextafter(F32(0.05), F32(1)), 1), (0.049, 0)])
def test_score_threshold_is_strict(score: float, kept: int) -> None:
    assert len(run(scene_of((0, 0, 10, 10, 0, score, 0))).scores) == kept


@pytest.mark.parametrize(
    "row",
    [
        (0, 0, 100, 50, 0, NAN, 0),
        (0, 0, 100, 50, 0, 0.05, 0),
        (NAN, 0, 100, 50, 0, 0.99, 0),
        (0, INF, 100, 50, 0, 0.99, 0),
        (0, 0, NAN, 50, 0, 0.99, 0),
        (0, 0, INF, 50, 0, 0.99, 0),
        (0, 0, 100, INF, 0, 0.99, 0),
        (0, 0, 100, 50, NAN, 0.99, 0),
        (0, 0, 100, 50, -INF, 0.99, 0),
        (0, 0, 0, 50, 0, 0.99, 0),
        (0, 0, 100, 0, 0, 0.99, 0),
        (0, 0, -100, -50, 0, 0.99, 0),
        (0, 0, 0, 0, 0, 0.0, -1),
    ],
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_is_out_does_nothing_wherever_it_stands(row: Any, at: int) -> None:
    rows: list[Any] = [(0, 0, 100, 50, 0.1, 0.8, 0), (4, 0, 100, 50, 0, 0.4, 0)]
    expected = run(scene_of(*rows))
    rows.insert(at, row)
    for got, want in zip(run(scene_of(*rows)), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_angles_are_normalised() -> None:
    angles = (math.pi, 2, -2, -1.5, 40, math.pi / 2, -4.71238899, -math.pi / 2, 1.5707962)
    rows = scene_of(*[(100.0 * i, 0, 30, 20, angle, 0.9 - i / 20, 0) for i, angle in enumerate(angles)])
    assert assert_like_twin(rows) == len(angles)
    assert run(rows).boxes[5, 4] == F32(-math.pi / 2)


def test_ties_go_to_the_lower_index() -> None:
    rows = [(0, 0, 100, 50, 0.2, 0.5, 0), (1, 0, 100, 50, 0.2, 0.5, 0), (900, 0, 9, 9, 0, 0.5, 0)]
    for order in ((0, 1, 2), (1, 0, 2)):
        found = run(scene_of(*[rows[i] for i in order]), vote_threshold=1.0)
        np.testing.assert_allclose(found.boxes, [rows[order[0]][:5], rows[2][:5]], rtol=1e-6)


@pytest.mark.parametrize("n", [2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_a_chain_needs_as_many_passes_as_it_is_long(n: int) -> None:
    assert assert_like_twin(chain(n), max_detections=300) == -(-n // 2)


def test_boxes_that_only_touch_are_apart() -> None:
    # At threshold 0, where any rounding would show: side by side, corner to corner, above each other and far apart.
    rows = [
        (x, y, 40, 20, 0, 0.9 - 0.01 * (5 * i + j), 0)
        for i, x in enumerate((0, 40, 80, 400))
        for j, y in enumerate((0, 20, 60))
    ]
    assert len(run(scene_of(*rows), iou_threshold=0.0).scores) == 12
    turned = [(3.3 * x + 50 * y, 70 * y, 40, 20, 0.3 + i, score, 0) for i, (x, y, _, _, _, score, _) in enumerate(rows)]
    assert len(run(scene_of(*turned), iou_threshold=0.0).scores) == 12


def test_a_batch_of_unequal_counts() -> None:
    images = [crowd(n, n) for n in (1, 7, 90, 300)]
    boxes, scores, labels = np.full((5, 300, 5), NAN, F32), np.zeros((5, 300), F32), np.full((5, 300), -1, np.int64)
    for index, image in enumerate(images):  # the fifth image has none
        places = np.sort(np.random.default_rng(index).permutation(300)[: len(image.scores)])
        for target, source in zip((boxes, scores, labels), image, strict=True):
            target[index, places] = source
    options = RotatedNmsSettings(max_detections=MOST)
    counts, *found = run_batch(boxes, scores, labels, options)
    for index, image in enumerate([*images, scene_of()]):
        n = int(counts[index, 0])
        expected = Scene(*rotated_cluster_nms_numpy(*image, settings=options))
        assert_close(Scene(*(one[index, :n] for one in found)), expected)
        assert not found[0][index, n:].any()
        assert (found[2][index, n:] == -1).all()
    assert counts[4, 0] == 0


@pytest.mark.parametrize("most", [1, 5, CHUNK, CHUNK + 1, 400])
@pytest.mark.parametrize("n", [1, 40, 350])
def test_more_and_fewer_candidates_than_detections(n: int, most: int) -> None:
    assert_like_twin(crowd(3, n), max_detections=most)


def test_every_block_of_kept_boxes_gets_its_votes() -> None:
    # 150 boxes that stay, and one voter for each, behind all of them.
    places = [(60.0 * (i % 15), 60.0 * (i // 15)) for i in range(150)]
    rows = [(x, y, 40, 20, 0.3, 0.9 - i / 1000, 0) for i, (x, y) in enumerate(places)]
    rows += [(x, y, 18, 40, 0.3 + math.pi / 2, 0.6 - i / 1000, 0) for i, (x, y) in enumerate(places)]
    assert assert_like_twin(scene_of(*rows), max_detections=200, atol=1e-3) == 150
    heights = run(scene_of(*rows), max_detections=200).boxes[:, 3]
    assert ((heights > 18.5) & (heights < 19.8)).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"iou_threshold": 0.8},
        {"vote_threshold": 0.3},
        {"vote_threshold": 1.0},
        {"vote_sigma": 0.3},
        {"score_threshold": 0.5},
    ],
)
def test_every_attribute_reaches_the_body(changed: dict[str, float]) -> None:
    scene = crowd(8, 120)
    assert_like_twin(scene, **changed)
    default, other = run(scene), run(scene, **changed)
    assert len(default.scores) != len(other.scores) or np.abs(default.boxes - other.boxes).max() > 0.01


@pytest.mark.parametrize(("far", "atol"), [(0, 1e-3), (1e5, 2e-2)])
def test_far_from_the_origin(far: float, atol: float) -> None:
    scene = crowd(2, 200)
    scene.boxes[:, :2] += F32(far)
    assert assert_like_twin(scene, atol=atol) > 10


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 200),
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([5, 1000]),
    classes=st.integers(1, 4),
    aspect=st.sampled_from([1.5, 6, 30]),
)
def test_equals_the_twin(n: int, seed: int, steps: int, classes: int, aspect: float) -> None:
    boxes, scores, labels = crowd(seed, n, classes=classes, aspect=aspect, extent=60 + n)
    scene = Scene(boxes, np.ceil(scores * F32(steps)) / F32(steps), labels)
    if clear_of(scene, near=1e-5, options=RotatedNmsSettings()):
        assert_like_twin(scene)


def overlaps(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """IoU of all pairs as the function's text computes it."""
    from onnx import parser

    from ld_export.rotated_nms_text import rotated_iou as iou_text

    text = f"""
    <ir_version: 10, opset_import: ["" : 18]>
    overlaps (float[N, K, 7] boxes) => (float[N, K, K] d)
        <float half = {{0.5}}, float one = {{1.0}}, float zero = {{0.0}}, float tiny = {{1.0e-30}}>
    {{ {iou_text("d", "boxes", "boxes")} }}
    """
    whole = np.concatenate([boxes, np.cos(boxes[:, 4:]), np.sin(boxes[:, 4:])], axis=1)
    return open_session(parser.parse_model(text)).run(None, {"boxes": whole[None]})[0][0]


@pytest.mark.parametrize(("aspect", "atol"), [(6, 2e-6), (100, 2e-5), (1000, 2e-4)])
@pytest.mark.parametrize("seed", range(3))
def test_overlaps_in_float32(seed: int, aspect: float, atol: float) -> None:
    boxes = crowd(seed, 300, aspect=aspect).boxes
    boxes = np.concatenate([boxes, written_otherwise(boxes, np.arange(300) % 5 - 2)])
    np.testing.assert_allclose(overlaps(boxes), rotated_iou(boxes, boxes), atol=atol)


def test_boxes_that_do_not_meet_have_no_common_area_at_all() -> None:
    first, second = apart_pairs(7, 300, gap=1e-2)
    iou = overlaps(np.concatenate([first, second]))
    pairs = np.arange(len(first)), np.arange(len(first)) + len(first)
    assert len(first) > 100
    assert not iou[pairs].any()
    assert not iou.T[pairs].any()


BUILD = """
import sys
import tensorrt_rtx as trt

logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
if not parser.parse_from_file(sys.argv[1]):
    sys.exit("; ".join(parser.get_error(index).desc() for index in range(parser.num_errors)))
assert not any(network.get_layer(index).type == trt.LayerType.MATRIX_MULTIPLY for index in range(network.num_layers))
config = builder.create_builder_config()
profile = builder.create_optimization_profile()
for index, last in enumerate(((5,), (), ())):
    shapes = [(*batch_and_candidates, *last) for batch_and_candidates in ((1, 1), (1, 1000), (4, 2000))]
    profile.set_shape(network.get_input(index).name, *shapes)
config.add_optimization_profile(profile)
engine = builder.build_serialized_network(network, config)
assert engine is not None
print(engine.nbytes)
"""


def test_tensorrt_rtx_builds_it_on_the_cpu(tmp_path: Path) -> None:
    path = tmp_path / "rotated.onnx"
    onnx.save(rotated_nms_model(settings=RotatedNmsSettings()), path)
    # In a process of its own: a crash of the library is seen as one.
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 10_000
