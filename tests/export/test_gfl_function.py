from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ld_export.gfl_function import candidate_function, detect_function, map_names, tail_model
from ld_export.nms_function import nms_function
from ld_export.onnx_check import open_session
from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.gfl_candidates import gfl_candidates
from ld_runtime.model_card import CandidateRule, ModelCard, NmsSettings, Preprocess

ORACLES = Path(__file__).parents[1] / "oracles"
STRIDES = (8, 16, 32, 64, 128)
Maps = list[NDArray[np.float32]]


def card(rule: CandidateRule, *, nms: NmsSettings | None = None) -> ModelCard:
    """With an NMS, a card of detections; without one, of candidates."""
    free = Preprocess("keep_ratio", (64, 64), None, 32, (0, 0, 0), (0, 0, 0), (1, 1, 1))
    kind: Any = "cluster_diou" if nms else "none"
    return ModelCard(free, ("a",), candidates=rule, nms=nms or NmsSettings(), nms_kind=kind)


@cache
def session(
    rule: CandidateRule, *, strides: tuple[int, ...] = STRIDES, classes: int = 3, bins: int = 17, nms: Any = None
) -> Any:
    return open_session(tail_model(card=card(rule, nms=nms), strides=strides, classes=classes, bins=bins), threads=1)


def run(maps: Maps, rule: CandidateRule, *, strides: tuple[int, ...] = STRIDES, nms: Any = None) -> list[NDArray[Any]]:
    levels = len(strides)
    open_one = session(rule, strides=strides, classes=maps[0].shape[1], bins=maps[-1].shape[1] // 4, nms=nms)
    outputs: list[NDArray[Any]] = open_one.run(None, dict(zip(map_names(levels), maps, strict=True)))
    return outputs


def random_maps(
    hw: tuple[int, int], *, seed: int = 0, images: int = 2, classes: int = 3, steps: int = 0, bins: int = 17
) -> Maps:
    """Maps of a canvas; with `steps`, class logits are multiples of 1/steps, so that many are equal."""
    rng = np.random.default_rng(seed)
    sizes = [(-(-hw[0] // stride), -(-hw[1] // stride)) for stride in STRIDES]
    logits = [rng.normal(-2, 1.5, (images, classes, *size)) for size in sizes]
    if steps:
        logits = [np.round(one * steps) / steps for one in logits]
    edges = [rng.normal(0, 1.5, (images, 4 * bins, *size)) for size in sizes]
    return [one.astype(np.float32) for one in (*logits, *edges)]


def assert_like_twin(maps: Maps, rule: CandidateRule, *, score_threshold: float = 0.0) -> int:
    """Also the order, and which of equal logits: ONNX Runtime's TopK takes the lower index first."""
    boxes, scores, labels = run(maps, rule)
    count = 0
    for index in range(len(boxes)):
        expected = gfl_candidates(
            [one[index] for one in maps[:5]],
            [one[index] for one in maps[5:]],
            strides=STRIDES,
            rule=rule,
            score_threshold=score_threshold,
            canvas_hw=(8 * maps[0].shape[2], 8 * maps[0].shape[3]),
        )
        count = len(expected[1])
        np.testing.assert_array_equal(labels[index, :count], expected[2])
        np.testing.assert_allclose(scores[index, :count], expected[1], atol=2e-7, rtol=0)
        np.testing.assert_allclose(boxes[index, :count], expected[0], atol=1e-3, rtol=0)
        assert not (scores[index, count:] > score_threshold).any()
        assert np.isfinite(boxes[index]).all()
    return count


def operators(nodes: Any) -> set[str]:
    found = {one.op_type for one in nodes}
    bodies = [attribute.g.node for one in nodes for attribute in one.attribute if attribute.HasField("g")]
    return found.union(*(operators(body) for body in bodies))


@pytest.mark.parametrize("rule", [CandidateRule(100, 100), CandidateRule(30, 100)])
@pytest.mark.parametrize("nms", [None, NmsSettings(max_detections=7)])
def test_contract(rule: CandidateRule, nms: NmsSettings | None) -> None:
    model = tail_model(card=card(rule, nms=nms), strides=STRIDES, classes=3, bins=17)
    onnx.checker.check_model(model, full_check=True)
    (node,), (function,) = model.graph.node, model.functions
    assert (node.domain, node.op_type) == ("ld_deploy", "GFLDetect" if nms else "GFLCandidates")
    assert (function.domain, function.name) == (node.domain, node.op_type)
    assert set(function.attribute) == {one.name for one in node.attribute}
    assert list(node.input) == [f"{kind}_{level}" for kind in ("class_logits", "edge_logits") for level in range(5)]
    values = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    assert values["strides"] == [8, 16, 32, 64, 128]
    assert (values["per_level_top_k"], values["pre_nms_top_k"]) == (rule.per_level_top_k, 100)
    # No call inside the function: TensorRT's parser would read its attributes as 0.
    assert {one.domain for one in function.node} == {""}
    assert operators(function.node).isdisjoint({"MatMul", "Gemm", "NonZero", "Einsum"})
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in inferred.graph.output
    }
    rows = 7 if nms else 100
    expected = {"boxes": ["batch", rows, 4], "scores": ["batch", rows], "labels": ["batch", rows]}
    assert shapes == ({"num_detections": ["batch", 1]} if nms else {}) | expected
    if nms:
        assert (values["plugin_namespace"], values["plugin_version"]) == (b"ld_deploy", b"1")


def test_the_statements_of_both_are_in_it_and_no_name_twice() -> None:
    rule = CandidateRule()
    both = detect_function(levels=5, rule=rule)
    assert len(both.node) == len(candidate_function(levels=5, rule=rule).node) + len(nms_function().node)
    names = [name for node in both.node for name in node.output] + list(both.input)
    assert len(set(names)) == len(names)


def one_level(class_logits: Any, distances: Any, *, bins: int = 9) -> Maps:
    """Maps (1, C, h, w) and (1, 4 * bins, h, w) of distances (4, h, w), whole numbers of strides."""
    logits = np.asarray(class_logits, np.float32)[None]
    certain = np.asarray(distances)[:, None] == np.arange(bins)[None, :, None, None]  # (4, bins, h, w)
    return [logits, np.where(certain, 60, -60).astype(np.float32).reshape(1, 4 * bins, *logits.shape[2:])]


def test_a_decode_by_hand() -> None:
    logits = np.full((2, 3, 4), -9.0)
    logits[1, 1, 2] = 2.0  # row 1, column 2
    logits[0, 2, 3] = 1.0  # row 2, column 3: the canvas is 24 x 32
    distances = np.zeros((4, 3, 4))
    distances[:, 1, 2] = 1, 0, 1, 1
    distances[:, 2, 3] = 2, 1, 8, 8
    boxes, scores, labels = run(one_level(logits, distances), CandidateRule(5, 5), strides=(8,))
    np.testing.assert_allclose(boxes[0, :2], [[8, 8, 24, 16], [8, 8, 32, 24]], atol=1e-4)  # the second is clipped
    np.testing.assert_allclose(scores[0, :2], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-1))], atol=1e-6)
    np.testing.assert_array_equal(labels[0, :2], [1, 0])


def test_an_expectation_lies_between_two_bins() -> None:
    maps = one_level(np.zeros((1, 1, 1)), np.zeros((4, 1, 1)), bins=3)
    maps[1][:] = np.log([1, 2, 5] * 4).reshape(1, 12, 1, 1)  # (2 + 2 * 5) / 8 = 1.5 strides
    boxes, _, _ = run(maps, CandidateRule(1, 1), strides=(8,))
    np.testing.assert_allclose(boxes[0, 0], [0, 0, 8, 8], atol=1e-5)  # 12 px, clipped to the canvas of 8
    maps[1][:, :6] += 100  # the same for every bin of two sides: softmax does not see it
    np.testing.assert_array_equal(run(maps, CandidateRule(1, 1), strides=(8,))[0], boxes)


def test_each_level_has_its_own_stride_and_place() -> None:
    strides = (8, 16)
    logits = [np.full((1, 1, 4, 4), -9, np.float32), np.full((1, 1, 2, 2), -9, np.float32)]
    logits[0][0, 0, 3, 0], logits[1][0, 0, 0, 1] = 1, 2
    edges = [one_level(np.zeros((1, size, size)), np.ones((4, size, size)))[1] for size in (4, 2)]
    boxes, _, _ = run([*logits, *edges], CandidateRule(3, 3), strides=strides)
    np.testing.assert_allclose(boxes[0, :2], [[0, 0, 32, 16], [0, 16, 8, 32]], atol=1e-4)


def test_equal_logits_go_to_the_lower_level_then_location_then_class() -> None:
    maps = [np.zeros((1, 2, size, size), np.float32) for size in (2, 1)]
    maps[0][0, 1, 1, 1] = 1  # the best; its other class comes last of its level
    maps += [one_level(np.zeros((1, size, size)), np.zeros((4, size, size)))[1] for size in (2, 1)]
    for rule in (CandidateRule(20, 10), CandidateRule(8, 10)):
        boxes, scores, labels = run(maps, rule, strides=(8, 16))
        np.testing.assert_array_equal(boxes[0, :, 0], [8, 0, 0, 8, 8, 0, 0, 8, 0, 0])
        np.testing.assert_array_equal(boxes[0, :, 1], [8, 0, 0, 0, 0, 8, 8, 8, 0, 0])
        np.testing.assert_array_equal(labels[0], [1, 0, 1, 0, 1, 0, 1, 0, 0, 1])
        assert (scores[0, 1:] == 0.5).all()


def test_a_level_gives_no_more_than_its_limit() -> None:
    maps = random_maps((64, 96), images=1)
    maps[0] += 20  # the first level has all the best
    _, scores, _ = run(maps, CandidateRule(5, 30))
    assert int((scores[0] > 0.999).sum()) == 5
    assert assert_like_twin(maps, CandidateRule(5, 30)) == 4 * 5 + 3  # the last level has three pairs


@pytest.mark.parametrize("hw", [(1, 1), (32, 32), (64, 224)])
@pytest.mark.parametrize("rule", [CandidateRule(900, 900), CandidateRule(300, 900)])
def test_small_canvases_are_padded_with_score_0(hw: tuple[int, int], rule: CandidateRule) -> None:
    maps = random_maps(hw)
    pairs = sum(min(rule.per_level_top_k, one[0].size) for one in maps[:5])
    assert assert_like_twin(maps, rule) == min(pairs, 900)
    assert run(maps, rule)[1].shape == (2, 900)


@settings(max_examples=30, deadline=None)
@given(
    hw=st.sampled_from([(32, 32), (64, 96), (160, 128), (40, 200)]),
    seed=st.integers(0, 10**6),
    steps=st.sampled_from([0, 1, 8]),
    rule=st.sampled_from([CandidateRule(200, 200), CandidateRule(500, 200), CandidateRule(40, 200)]),
    classes=st.sampled_from([1, 4]),
)
def test_equals_the_twin(hw: tuple[int, int], seed: int, steps: int, rule: CandidateRule, classes: int) -> None:
    maps = random_maps(hw, seed=seed, steps=steps, classes=classes)
    assert_like_twin(maps, rule)
    assert_like_twin(maps, rule, score_threshold=0.3)


def test_detections_are_candidates_then_nms() -> None:
    maps, rule = random_maps((160, 192), images=3), CandidateRule(300, 300)
    nms = NmsSettings(iou_threshold=0.5, vote_threshold=0.6, vote_sigma=0.04, score_threshold=0.2, max_detections=40)
    candidates, found = run(maps, rule), run(maps, rule, nms=nms)
    for index in range(3):
        boxes, scores, labels = cluster_diou_nms(
            *(one[index] for one in candidates),
            iou_threshold=0.5,
            vote_threshold=0.6,
            vote_sigma=0.04,
            score_threshold=0.2,
            max_detections=40,
        )
        count = int(found[0][index, 0])
        assert count == len(scores) > 10
        np.testing.assert_array_equal(found[2][index, :count], scores)
        np.testing.assert_array_equal(found[3][index, :count], labels)
        np.testing.assert_allclose(found[1][index, :count], boxes, atol=2e-3)
        assert (found[3][index, count:] == -1).all()


def test_published_detections() -> None:
    with np.load(ORACLES / "gfl_inference.npz") as file:
        arrays = {name: file[name] for name in file.files}
    maps = [arrays[f"{part}.{level}"].astype(np.float32) for part in ("cls", "reg") for level in range(5)]
    canvas = (8 * maps[0].shape[2], 8 * maps[0].shape[3])
    inside = [index for index, hw in enumerate(arrays["img_shape"]) if tuple(hw) == canvas]
    assert inside
    # Of an image as large as the canvas: published boxes are clipped to the image.
    counts, boxes, scores, labels = run(maps, CandidateRule(1000, 5000), nms=NmsSettings())
    for image in inside:
        expected = arrays[f"vote.pre1000.rescale0.{image}.dets"]
        count = int(counts[image, 0])
        assert count == len(expected) > 20
        same = arrays[f"vote.pre1000.rescale0.{image}.labels"][:, None] == labels[image, :count]
        same &= np.abs(expected[:, 4, None] - scores[image, :count]) < 1e-5
        same &= np.abs(expected[:, None, :4] - boxes[image, :count]).max(axis=2) < 0.02
        assert same.any(axis=1).all()
        assert same.any(axis=0).all()
