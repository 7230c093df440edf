"""The ONNX functions of a head of rotated boxes in ONNX Runtime: against the numpy twin, PyTorch's head and the NMS."""

from __future__ import annotations

import math
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
from ld_export.onnx_check import open_session
from ld_export.rotated_nms_function import rotated_nms_function
from ld_runtime.gfl_candidates import rotated_gfl_candidates
from ld_runtime.model_card import CandidateRule, ModelCard, Preprocess
from ld_runtime.rotated_boxes import differences
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy

STRIDES, BINS = (8, 16, 32), 17
CONFIG = Path(__file__).parents[2] / "configs" / "ssdd" / "student.py"
Maps = list[NDArray[np.float32]]


def card(rule: CandidateRule, *, nms: RotatedNmsSettings | None = None) -> ModelCard:
    """With an NMS, a card of detections; without one, of candidates."""
    free = Preprocess("keep_ratio", (64, 64), None, 32, (0, 0, 0), (0, 0, 0), (1, 1, 1))
    kind: Any = "rotated_cluster" if nms else "none"
    settings = nms or RotatedNmsSettings()
    return ModelCard(free, ("a",), candidates=rule, nms=settings, nms_kind=kind, box_format="cxcywha")


@cache
def session(rule: CandidateRule, classes: int, nms: RotatedNmsSettings | None) -> Any:
    model = tail_model(card=card(rule, nms=nms), strides=STRIDES, classes=classes, bins=BINS)
    return open_session(model, threads=1)


def run(maps: Maps, rule: CandidateRule, *, nms: RotatedNmsSettings | None = None) -> list[NDArray[Any]]:
    feed = dict(zip(map_names(len(STRIDES)), maps, strict=True))
    outputs: list[NDArray[Any]] = session(rule, maps[0].shape[1], nms).run(None, feed)
    return outputs


def random_maps(hw: tuple[int, int], *, seed: int = 0, images: int = 2, classes: int = 2, spread: float = 1.5) -> Maps:
    rng = np.random.default_rng(seed)
    sizes = [(-(-hw[0] // stride), -(-hw[1] // stride)) for stride in STRIDES]
    logits = [rng.normal(-2, 1.5, (images, classes, *size)) for size in sizes]
    edges = [rng.normal(0, spread, (images, 5, BINS, *size)) for size in sizes]
    for one in edges:  # sides of a few strides: of larger boxes the NMS keeps too few
        one[:, 2:4] -= 0.6 * np.arange(BINS)[:, None, None]
    edges = [one.reshape(images, 5 * BINS, *one.shape[3:]) for one in edges]
    return [one.astype(np.float32) for one in (*logits, *edges)]


def twin(maps: Maps, index: int, rule: CandidateRule, score_threshold: float = 0.0) -> Any:
    levels = len(STRIDES)
    of_image = [one[index] for one in maps]
    return rotated_gfl_candidates(
        of_image[:levels], of_image[levels:], strides=STRIDES, rule=rule, score_threshold=score_threshold
    )


def assert_near(found: Any, expected: Any, *, atol_px: float = 2e-3, angle: float = 1e-3) -> None:
    apart = np.abs(differences(np.asarray(expected), np.asarray(found)))
    assert apart[:, :4].max(initial=0) < atol_px
    assert apart[:, 4].max(initial=0) < angle


@pytest.mark.parametrize("rule", [CandidateRule(100, 100), CandidateRule(30, 100)])
@pytest.mark.parametrize("nms", [None, RotatedNmsSettings(max_detections=7)])
def test_contract(rule: CandidateRule, nms: RotatedNmsSettings | None) -> None:
    model = tail_model(card=card(rule, nms=nms), strides=STRIDES, classes=3, bins=BINS)
    onnx.checker.check_model(model, full_check=True)
    (node,), (function,) = model.graph.node, model.functions
    assert (node.domain, node.op_type) == ("ld_deploy", "RotatedGFLDetect" if nms else "RotatedGFLCandidates")
    assert (function.domain, function.name) == (node.domain, node.op_type)
    assert set(function.attribute) == {one.name for one in node.attribute}
    assert {one.domain for one in function.node} == {""}
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shapes = {
        one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in inferred.graph.output
    }
    rows = 7 if nms else 100
    expected = {"boxes": ["batch", rows, 5], "scores": ["batch", rows], "labels": ["batch", rows]}
    assert shapes == ({"num_detections": ["batch", 1]} if nms else {}) | expected
    assert [one.type.tensor_type.shape.dim[1].dim_value for one in model.graph.input][-1] == 5 * BINS


def test_the_statements_of_both_are_in_it_and_no_name_twice() -> None:
    rule = CandidateRule()
    both = detect_function(levels=3, rule=rule, box_format="cxcywha")
    decode = candidate_function(levels=3, rule=rule, box_format="cxcywha")
    assert len(both.node) == len(decode.node) + len(rotated_nms_function().node)
    names = [name for node in both.node for name in node.output] + list(both.input)
    assert len(set(names)) == len(names)


def certain(angle_bins: dict[int, float], *, bins: tuple[int, ...] = (8, 8, 3, 1)) -> Maps:
    """Maps of a canvas of 32 x 32 whose one good location is the first level's first."""
    maps = [np.full((1, 1, 32 // stride, 32 // stride), -30, np.float32) for stride in STRIDES]
    maps[0][0, 0, 0, 0] = 1
    for stride in STRIDES:
        rows = np.full((5, BINS), -200, np.float32)
        rows[np.arange(4), list(bins)] = 0
        for bin_, share in angle_bins.items():
            rows[4, bin_] = math.log(share)
        maps.append(np.tile(rows.reshape(1, -1, 1, 1), (1, 1, 32 // stride, 32 // stride)))
    return maps


@pytest.mark.parametrize(
    ("angle_bins", "angle"),
    [
        ({0: 1.0}, 0.0),
        ({4: 1.0}, math.pi * 4 / 17),
        ({5: 1.0}, math.pi * 5 / 17),  # its doubled angle has a negative cosine
        ({8: 1.0}, math.pi * 8 / 17),
        ({9: 1.0}, math.pi * 9 / 17 - math.pi),
        ({13: 1.0}, math.pi * 13 / 17 - math.pi),
        ({0: 0.5, 16: 0.5}, -math.pi / 34),
        ({8: 0.5, 9: 0.5}, math.pi / 2),  # the end of the half turn, which is its beginning
        (dict.fromkeys(range(17), 1 / 17), 0.0),  # no direction
    ],
)
def test_decode_by_hand(angle_bins: dict[int, float], angle: float) -> None:
    boxes, scores, labels = run(certain(angle_bins), CandidateRule(4, 4))
    assert_near(boxes[0, :1], np.array([[0, 0, 48, 16, angle]]), atol_px=1e-3, angle=1e-5)
    assert -np.float32(np.pi / 2) <= boxes[0, 0, 4] < np.float32(np.pi / 2)
    assert scores[0, 0] == pytest.approx(1 / (1 + math.exp(-1)))
    assert labels[0, 0] == 0
    off = run(certain(angle_bins, bins=(16, 0, 3, 1)), CandidateRule(4, 4))[0]
    np.testing.assert_allclose(off[0, 0, :2], [64, -64], atol=1e-3)  # not clipped to the canvas


@settings(max_examples=30, deadline=None)
@given(
    hw=st.sampled_from([(32, 32), (64, 96), (160, 128)]),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.3, 1.5, 10.0]),
    rule=st.sampled_from([CandidateRule(200, 200), CandidateRule(40, 200)]),
)
def test_equals_the_twin(hw: tuple[int, int], seed: int, spread: float, rule: CandidateRule) -> None:
    maps = random_maps(hw, seed=seed, spread=spread)
    boxes, scores, labels = run(maps, rule)
    for index in range(2):
        expected = twin(maps, index, rule)
        count = len(expected[1])
        np.testing.assert_array_equal(labels[index, :count], expected[2])
        np.testing.assert_allclose(scores[index, :count], expected[1], atol=2e-7, rtol=0)
        assert_near(boxes[index, :count], expected[0])
        assert np.isfinite(boxes[index]).all()


def test_adversarial_maps_equal_the_twin() -> None:
    """Equal scores, no direction, boxes of no width, directions at the end of the half turn, and NaN."""
    maps = random_maps((64, 96), seed=5, images=1)
    maps[0][:] = np.round(maps[0])
    flat, thin, end, nan = (maps[3][0].reshape(5, BINS, -1)[:, :, part] for part in (
        slice(0, 12), slice(12, 30), slice(30, 50), slice(50, 60)))  # fmt: skip
    flat[4] = 0.25
    thin[3], thin[3, 0] = -300, 0  # no height at all
    end[4] = -90
    end[4, 8:10] = 0
    nan[4, 2] = np.nan
    rule, options = CandidateRule(150, 150), RotatedNmsSettings(max_detections=60)
    boxes, scores, labels = (one[0] for one in run(maps, rule))
    expected = twin(maps, 0, rule)
    np.testing.assert_array_equal(labels, expected[2])
    np.testing.assert_array_equal(np.isnan(boxes), np.isnan(expected[0]))
    assert np.isnan(boxes).any()
    finite = np.isfinite(boxes).all(axis=1)
    assert_near(boxes[finite], expected[0][finite])
    kept = rotated_cluster_nms_numpy(boxes, scores, labels, settings=options)
    counts, *found = run(maps, rule, nms=options)
    count = int(counts[0, 0])
    assert count == len(kept[1]) > 5
    np.testing.assert_array_equal(found[1][0, :count], kept[1])
    assert_near(found[0][0, :count], kept[0], atol_px=2e-2)
    assert (kept[0][:, 2:4] > 0).all()


def test_detections_are_candidates_then_nms() -> None:
    maps, rule = random_maps((96, 128), images=3), CandidateRule(200, 200)
    options = RotatedNmsSettings(
        iou_threshold=0.3, vote_threshold=0.6, vote_sigma=0.04, score_threshold=0.2, max_detections=40
    )
    candidates, found = run(maps, rule), run(maps, rule, nms=options)
    for index in range(3):
        expected = rotated_cluster_nms_numpy(*(one[index] for one in candidates), settings=options)
        count = int(found[0][index, 0])
        assert count == len(expected[1]) > 10
        np.testing.assert_array_equal(found[2][index, :count], expected[1])
        np.testing.assert_array_equal(found[3][index, :count], expected[2])
        assert_near(found[1][index, :count], expected[0], atol_px=2e-2)
        assert (found[3][index, count:] == -1).all()


def test_equals_pytorchs_head() -> None:
    import torch
    from mmdet.registry import MODELS

    import ld_deploy.models  # noqa: F401 - registers the head
    from ld_deploy.config import load_config

    config = load_config(CONFIG)
    test_cfg = config.model.test_cfg
    test_cfg.update(nms_pre=200, pre_nms_top_k=200, score_thr=0.05, max_per_img=50)
    head = MODELS.build({**config.model.bbox_head, "test_cfg": test_cfg, "train_cfg": None}).eval()
    maps = random_maps((64, 96), images=1, classes=1, spread=2.0)
    levels = [[torch.from_numpy(one) for one in kind] for kind in (maps[:3], maps[3:])]
    meta = {"img_shape": (64, 96), "pad_shape": (64, 96), "scale_factor": (1.0, 1.0)}
    with torch.no_grad():
        expected = head.predict_by_feat(*levels, batch_img_metas=[meta], rescale=False)[0]
    nms = {key: value for key, value in test_cfg.nms.items() if key != "type"}
    options = RotatedNmsSettings(**nms, score_threshold=0.05, max_detections=50)
    counts, boxes, scores, labels = run(maps, CandidateRule(200, 200), nms=options)
    count = int(counts[0, 0])
    assert count == len(expected.scores) > 5
    np.testing.assert_allclose(scores[0, :count], expected.scores.numpy(), atol=1e-6)
    np.testing.assert_array_equal(labels[0, :count], expected.labels.numpy())
    assert_near(boxes[0, :count], expected.bboxes.numpy(), atol_px=2e-2)
