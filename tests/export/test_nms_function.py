from __future__ import annotations

import math
from collections.abc import Callable
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

from ld_export.nms_function import INPUTS, OUTPUTS, nms_function, nms_model
from ld_export.nms_text import CHUNK
from ld_export.onnx_check import open_session
from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.model_card import NmsSettings

ORACLES = Path(__file__).parents[1] / "oracles"
F32, I64 = np.float32, np.int64
Result = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


@cache
def session(nms: NmsSettings) -> Any:
    return open_session(nms_model(settings=nms))


def run_batch(boxes: Any, scores: Any, labels: Any, **changed: Any) -> list[NDArray[Any]]:
    feed = {INPUTS[0]: np.asarray(boxes, F32), INPUTS[1]: np.asarray(scores, F32), INPUTS[2]: np.asarray(labels, I64)}
    outputs: list[NDArray[Any]] = session(NmsSettings(**changed)).run(list(OUTPUTS), feed)
    return outputs


def run(boxes: Any, scores: Any, labels: Any, **changed: Any) -> Result:
    """One image, without the padding, which is checked."""
    count, out_boxes, out_scores, out_labels = run_batch([boxes], [scores], [labels], **changed)
    n = int(count[0, 0])
    assert not out_boxes[0, n:].any()
    assert not out_scores[0, n:].any()
    assert (out_labels[0, n:] == -1).all()
    return out_boxes[0, :n], out_scores[0, :n], out_labels[0, :n]


def assert_like_twin(boxes: Any, scores: Any, labels: Any, **changed: Any) -> int:
    boxes, scores, labels = np.asarray(boxes, F32), np.asarray(scores, F32), np.asarray(labels, I64)
    expected = cluster_diou_nms(boxes, scores, labels, **asdict(NmsSettings(**changed)), backend="numpy")
    got = run(boxes, scores, labels, **changed)
    np.testing.assert_array_equal(got[1], expected[1])
    np.testing.assert_array_equal(got[2], expected[2])
    np.testing.assert_allclose(got[0], expected[0], atol=2e-3, rtol=0)
    return len(expected[1])


def scene(n: int, *, seed: int, classes: int = 3, size: float = 200.0, steps: int = 0) -> tuple[Any, Any, Any]:
    """Clustered boxes; with `steps`, scores are multiples of 1/steps, so that many are equal."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, size, (max(1, n // 8), 2))[rng.integers(0, max(1, n // 8), n)] + rng.normal(0, 4, (n, 2))
    half = rng.uniform(12, 20, (n, 2))
    scores = rng.uniform(0, 1, n)
    if steps:
        scores = np.round(scores * steps) / steps
    return (
        np.concatenate([centres - half, centres + half], 1).astype(F32),
        scores.astype(F32),
        rng.integers(0, classes, n),
    )


def test_contract() -> None:
    model = nms_model(settings=NmsSettings(max_detections=7), candidates=40)
    onnx.checker.check_model(model, full_check=True)
    (node,) = model.graph.node
    assert (node.domain, node.op_type) == ("ld_deploy", "ClusterDIoUNMS")
    attributes = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert attributes.pop("plugin_namespace") == b"ld_deploy"
    assert attributes.pop("plugin_version") == b"1"
    assert attributes == pytest.approx(asdict(NmsSettings(max_detections=7)))
    function = nms_function()
    assert set(function.attribute) == {one.name for one in node.attribute}

    def operators(nodes: Any) -> set[str]:
        found = {one.op_type for one in nodes}
        bodies = [attribute.g.node for one in nodes for attribute in one.attribute if attribute.HasField("g")]
        return found.union(*(operators(body) for body in bodies))

    assert operators(function.node).isdisjoint({"MatMul", "Gemm", "NonZero", "Einsum"})
    # Standard operators' shape inference gives what the contract says.
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in inferred.graph.output
    }
    assert shapes == {
        "num_detections": ["batch", 1],
        "boxes": ["batch", 7, 4],
        "scores": ["batch", 7],
        "labels": ["batch", 7],
    }
    types = [one.type for one in session(NmsSettings()).get_outputs()]
    assert types == ["tensor(int32)", "tensor(float)", "tensor(float)", "tensor(int64)"]


def test_a_vote_by_hand() -> None:
    boxes, scores, labels = run([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]], [0.9, 0.8, 0.7], [1, 1, 2])
    d = 0.9 - (0.25 / 200) ** 0.8  # IoU 90/100; centres 0.5 apart, diagonal squared 200
    weight = math.exp(-((1 - d) ** 2) / 0.025) * 0.8
    np.testing.assert_allclose(boxes[0], [0, 0, 10, (0.9 * 10 + weight * 9) / (0.9 + weight)], atol=1e-5)
    np.testing.assert_array_equal(boxes[1], [0, 0, 10, 9])  # another class neither falls nor votes
    np.testing.assert_array_equal(scores, np.array([0.9, 0.7], F32))  # voting leaves scores alone
    np.testing.assert_array_equal(labels, [1, 2])


@pytest.mark.parametrize(("inset", "kept"), [(2.0, 2), (1.9, 1), (2.1, 2)])
def test_iou_threshold_is_strict(inset: float, kept: int) -> None:
    # Concentric, so D is the IoU: 0.6, 0.62 and 0.58.
    assert len(run([[0, 0, 10, 10], [inset, 0, 10 - inset, 10]], [0.9, 0.8], [0, 0])[1]) == kept


@pytest.mark.parametrize(("threshold", "moved"), [(0.6, False), (0.59, True), (0.61, False)])
def test_vote_threshold_is_strict(threshold: float, moved: bool) -> None:
    boxes, _, _ = run([[0, 0, 10, 10], [2, 0, 8, 10]], [0.9, 0.8], [0, 0], vote_threshold=threshold)
    assert (boxes[0, 0] > 0) == moved


def test_a_box_votes_for_itself_whatever_the_threshold() -> None:
    assert assert_like_twin([[0, 0, 10, 10], [30, 0, 40, 10]], [0.9, 0.8], [0, 0], vote_threshold=1.0) == 2


@pytest.mark.parametrize(("score", "kept"), [(0.05, 0), (np.nextafter(F32(0.05), F32(1)), 1), (0.049, 0)])
def test_score_threshold_is_strict(score: float, kept: int) -> None:
    assert len(run([[0, 0, 10, 10]], [score], [0])[1]) == kept


NAN = float("nan")


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ([0, 0, 10, 10], NAN),
        ([0, 0, 10, 10], 0.05),
        ([NAN, 0, 10, 10], 0.9),
        ([0, 0, 10, NAN], 0.9),
        ([10, 0, 0, 10], 0.9),
        ([0, 10, 10, 0], 0.9),
        ([5, 0, 5, 10], 0.9),
        ([0, 5, 10, 5], 0.9),
        ([0, 0, 0, 0], 0.0),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_row_that_is_out_does_nothing_wherever_it_stands(box: list[float], score: float, place: int) -> None:
    boxes, scores = [[0.0, 0, 10, 10], [0.0, 0, 10, 9]], [0.8, 0.7]
    expected = run(boxes, scores, [0, 0])
    boxes.insert(place, box)
    scores.insert(place, score)
    for one, other in zip(run(boxes, scores, [0, 0, 0]), expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_ties_go_to_the_lower_index() -> None:
    boxes = [[0, 0, 10, 10], [50, 0, 60, 10], [0, 0, 10, 9.9], [50, 0, 60, 9.9], [90, 0, 95, 5]]
    found, _, labels = run(boxes, [0.5] * 5, [0, 0, 0, 0, 3], vote_threshold=0.999)
    np.testing.assert_array_equal(found, np.array(boxes, F32)[[0, 1, 4]])
    np.testing.assert_array_equal(labels, [0, 0, 3])
    # Which of the equal ones are returned is the same question.
    found, _, _ = run(boxes, [0.5] * 5, [0, 0, 0, 0, 3], vote_threshold=0.999, max_detections=1)
    np.testing.assert_array_equal(found, np.array(boxes, F32)[[0]])


@pytest.mark.parametrize("n", [2, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5])
def test_a_chain_needs_as_many_passes_as_it_is_long(n: int) -> None:
    # Each box overlaps its neighbours alone: kept and removed alternate, and the last depends on the first.
    boxes = [[1.5 * i, 0, 1.5 * i + 10, 10] for i in range(n)]
    scores = np.linspace(0.9, 0.1, n)
    assert assert_like_twin(boxes, scores, [0] * n, max_detections=200, vote_threshold=0.99) == -(-n // 2)


def test_a_vote_comes_from_a_candidate_far_behind_the_last_kept() -> None:
    n = 4 * CHUNK
    boxes = np.zeros((n, 4), F32)
    boxes[:, 0] = 100.0 * np.arange(n)
    boxes[:, 2:] = boxes[:, :2] + 10
    boxes[-1] = [0, 0, 10, 9]
    scores = np.linspace(0.9, 0.1, n)
    found, _, _ = run(boxes, scores, [0] * n, max_detections=2)  # the loop ends in the first chunk
    assert 9 < found[0, 3] < 10
    assert_like_twin(boxes, scores, [0] * n, max_detections=2)


def test_a_batch_of_unequal_counts() -> None:
    images = [scene(n, seed=n) for n in (1, 7, 90, 300)]
    most = max(len(one[1]) for one in images)
    boxes, scores, labels = np.full((5, most, 4), NAN, F32), np.zeros((5, most), F32), np.full((5, most), -1, I64)
    for index, image in enumerate(images):  # the fifth image has none
        places = np.sort(np.random.default_rng(index).permutation(most)[: len(image[1])])
        for target, source in zip((boxes, scores, labels), image, strict=True):
            target[index, places] = source
    counts, out_boxes, out_scores, out_labels = run_batch(boxes, scores, labels)
    for index, image in enumerate([*images, scene(0, seed=0)]):
        expected = cluster_diou_nms(*image, backend="numpy")
        n = len(expected[1])
        assert counts[index, 0] == n
        np.testing.assert_allclose(out_boxes[index, :n], expected[0], atol=2e-3, rtol=0)
        np.testing.assert_array_equal(out_scores[index, :n], expected[1])
        np.testing.assert_array_equal(out_labels[index, :n], expected[2])
        assert (out_labels[index, n:] == -1).all()
        assert not out_scores[index, n:].any()
        assert not out_boxes[index, n:].any()
    assert counts[4, 0] == 0


@pytest.mark.parametrize("most", [1, 5, 400])
@pytest.mark.parametrize("n", [1, 40, 350])
def test_more_and_fewer_candidates_than_detections(n: int, most: int) -> None:
    assert_like_twin(*scene(n, seed=3), max_detections=most)


def test_nothing_falls_where_no_d_is_above_the_threshold() -> None:
    # Also not the last row, which stands for those that the last chunk lacks.
    n = CHUNK + 3
    assert assert_like_twin([[0, 0, 10, 10]] * n, [0.5] * n, [0] * n, iou_threshold=1.0, max_detections=200) == n


@pytest.mark.parametrize(
    "changed", [{"iou_threshold": 0.3}, {"distance_exponent": 0.4}, {"vote_threshold": 0.4}, {"vote_sigma": 0.3}]
)
def test_every_attribute_reaches_the_body(changed: dict[str, float]) -> None:
    boxes, scores, labels = scene(120, seed=8)
    assert_like_twin(boxes, scores, labels, **changed)
    default, other = run(boxes, scores, labels), run(boxes, scores, labels, **changed)
    assert len(default[1]) != len(other[1]) or np.abs(default[0] - other[0]).max() > 0.01


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 200), seed=st.integers(0, 10**6), steps=st.sampled_from([0, 5, 40]), classes=st.integers(1, 4))
def test_equals_the_twin(n: int, seed: int, steps: int, classes: int) -> None:
    assert_like_twin(*scene(n, seed=seed, classes=classes, steps=steps, size=40.0 + n), max_detections=50)


@pytest.fixture(scope="module")
def oracle() -> dict[str, NDArray[np.float32]]:
    with np.load(ORACLES / "cluster_nms.npz") as file:
        return {name: file[name] for name in file.files}


def plain(boxes: Any, scores: Any, labels: Any) -> tuple[Any, Any, Any]:
    return boxes, scores, labels


def padded(boxes: Any, scores: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Every second row is one that is out."""
    out = np.insert(boxes, range(len(boxes)), [5, 5, 5, 5], axis=0)
    return out, np.insert(scores, range(len(scores)), 0.99), np.insert(labels, range(len(labels)), 0)


@pytest.mark.parametrize("form", [plain, padded])
@pytest.mark.parametrize(
    ("name", "tolerance_px"), [("small", 2e-3), ("mid", 2e-3), ("crowd", 2e-3), ("dense", 0.02), ("capped", 0.02)]
)
def test_published_scenes(oracle: Any, name: str, tolerance_px: float, form: Callable[..., Any]) -> None:
    score_threshold, iou_threshold, most = (float(value) for value in oracle[f"{name}.cfg"])
    rows = (oracle[f"{name}.boxes"][oracle[f"{name}.prior"]], oracle[f"{name}.score"], oracle[f"{name}.label"])
    limits = {"score_threshold": score_threshold, "iou_threshold": iou_threshold, "max_detections": int(most)}
    boxes, scores, labels = run(*form(*rows), **limits)
    np.testing.assert_array_equal(labels, oracle[f"{name}.labels"])
    np.testing.assert_array_equal(scores, oracle[f"{name}.dets"][:, 4])
    np.testing.assert_allclose(boxes, oracle[f"{name}.dets"][:, :4], atol=tolerance_px, rtol=0)
