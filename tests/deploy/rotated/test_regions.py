from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.distill.batch import Assignment, DistillBatch, HeadOutputs
from ld_deploy.distill.regions import REGIONS
from ld_deploy.models.atss import assign_atss
from ld_deploy.rotated.boxes import corners, in_convention, quarter_turned
from ld_deploy.rotated.overlaps import RotatedOverlaps, rotated_iou
from ld_deploy.rotated.priors import RotatedAnchorGenerator
from ld_deploy.rotated.regions import main_and_vlr_region
from ld_deploy.rotated.terms import RotatedClassificationKD, RotatedLocalizationKD

ORACLE = Path(__file__).parents[2] / "oracles" / "rotated_ld.npz"
RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def oracle() -> Any:
    with np.load(ORACLE) as arrays:
        return {name: torch.as_tensor(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def anchors() -> list[torch.Tensor]:
    generator = RotatedAnchorGenerator(
        octave_base_scale=4, scales_per_octave=3, ratios=[1.0, 0.5, 2.0], strides=[8, 16, 32, 64, 128]
    )
    levels: list[torch.Tensor] = generator.grid_priors(
        [(256 // s, 256 // s) for s in (8, 16, 32, 64, 128)], device="cpu"
    )
    return levels


def batch_of(levels: list[torch.Tensor], gts: list[torch.Tensor], **changes: Any) -> DistillBatch:
    priors = torch.cat(levels).expand(len(gts), -1, -1)
    shape = priors.shape[:2]
    plain = HeadOutputs(torch.zeros(*shape, 1), None)
    sizes = [len(level) for level in levels]
    valid = changes.pop("valid", torch.ones(shape, dtype=torch.bool))
    overlaps = RotatedOverlaps.of(priors, valid, gts, level_sizes=sizes)
    labels = changes.pop("labels", torch.ones(shape, dtype=torch.long))
    assigned = Assignment(priors, valid, labels, sizes, overlaps=overlaps)
    return DistillBatch(changes.get("student", plain), changes.get("teacher", plain), assigned, gts)


def test_published_region(oracle: Any, anchors: list[torch.Tensor]) -> None:
    gts = oracle["region.gts"]
    batch = batch_of(anchors, [gts, gts[:0], gts])
    weights = main_and_vlr_region(batch, recipe="published")
    assert int((oracle["region.ld"] > 0).sum()) == 2397
    for image in (0, 2):
        np.testing.assert_array_equal(weights[image] > 0, oracle["region.ld"] > 0)
        np.testing.assert_allclose(weights[image], oracle["region.ld"], rtol=1e-4, atol=1e-6)
    assert not weights[1].any()


def test_published_region_does_not_see_the_angle_and_ours_does(anchors: list[torch.Tensor]) -> None:
    upright = torch.tensor([[128.0, 128, 80, 20, 0]])
    standing = torch.tensor([[128.0, 128, 80, 20, math.pi / 2]])
    region = REGIONS["main_and_vlr"]
    published = [region(batch_of(anchors, [box]), recipe="published") for box in (upright, standing)]
    np.testing.assert_array_equal(*published)
    ours = [region(batch_of(anchors, [box]), recipe="default") for box in (upright, standing)]
    assert ((ours[0] > 0) != (ours[1] > 0)).any()
    np.testing.assert_allclose(
        ours[1], region(batch_of(anchors, [torch.tensor([[128.0, 128, 20, 80, 0]])]), recipe="default"), atol=1e-5
    )


@pytest.mark.parametrize("name", ["main_and_vlr", "vlr", "inside_gt", "fine_grained"])
def test_regions_do_not_depend_on_how_a_box_is_written(name: str, anchors: list[torch.Tensor]) -> None:
    boxes = torch.tensor([[70.3, 60.1, 90.2, 22.7, 0.4], [160.9, 170.3, 30.1, 61.2, 1.2]])
    expected = REGIONS[name](batch_of(anchors, [boxes]), recipe="default")
    assert expected.any()
    half_turn = boxes + torch.tensor([0, 0, 0, 0, math.pi])
    for written in (quarter_turned(boxes), half_turn, in_convention(boxes, convention="le135")):
        again = REGIONS[name](batch_of(anchors, [written]), recipe="default")
        np.testing.assert_array_equal(again > 0, expected > 0)
        np.testing.assert_allclose(again, expected, atol=1e-5)


def test_the_whole_scene_turned_has_the_same_region() -> None:
    # Priors and ground truth turned about the origin together: nothing may change but the coordinates.
    priors = torch.tensor(
        np.hstack([RNG.uniform(0, 60, (200, 2)), RNG.uniform(8, 40, (200, 2)), RNG.uniform(-2, 2, (200, 1))])
    )
    boxes = torch.tensor([[30.0, 30, 40, 12, 0.3], [15, 40, 10, 25, -1.0]], dtype=torch.float64)

    def turned(rows: torch.Tensor, by: float) -> torch.Tensor:
        x, y = rows[:, 0], rows[:, 1]
        cos, sin = math.cos(by), math.sin(by)
        return torch.stack([cos * x - sin * y, sin * x + cos * y, rows[:, 2], rows[:, 3], rows[:, 4] + by], dim=1)

    for name in ("main_and_vlr", "vlr", "inside_gt"):
        one = REGIONS[name](batch_of([priors], [boxes]), recipe="default")
        two = REGIONS[name](batch_of([turned(priors, 0.7)], [turned(boxes, 0.7)]), recipe="default")
        assert one.any()
        np.testing.assert_allclose(two, one, atol=1e-5)


def test_overlaps_by_hand() -> None:
    # A square of side 2 turned by 45 degrees in a square of side 2: an octagon of 8 (sqrt 2 - 1) square pixels.
    priors = torch.tensor([[[0.0, 0, 2, 2, math.pi / 4], [3.0, 0, 2, 2, 0], [0.5, 0, 2, 2, math.pi / 2]]])
    gts = torch.tensor([[[0.0, 0, 2, 2, 0]]])
    overlaps = RotatedOverlaps(priors, torch.ones(1, 3, dtype=torch.bool), gts, [3])
    octagon = 8 * (math.sqrt(2) - 1)
    np.testing.assert_allclose(overlaps.iou[0, :, 0], [octagon / (8 - octagon), 0, 3 / 5], rtol=1e-5)
    np.testing.assert_allclose(overlaps.intersection[0, :, 0], [octagon, 0, 3], rtol=1e-5)
    np.testing.assert_allclose(overlaps.squared_distance[0, :, 0], [0, 9, 0.25])
    # Around both: 5 x 2 for the second, 2.5 x 2 for the third.
    expected = [octagon / (8 - octagon), -9 / 29, 3 / 5 - 0.25 / 10.25]
    np.testing.assert_allclose(overlaps.diou()[0, :, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(
        overlaps.diou(iof=True)[0, :, 0], [octagon / 4, -9 / 29, 3 / 4 - 0.25 / 10.25], rtol=1e-5
    )
    np.testing.assert_allclose(overlaps.inner_margin(overlaps.prior_centres[:, :, None])[0, :, 0], [1, -2, 0.5])


def test_hull_of_the_distance_term_is_along_the_ground_truth() -> None:
    # Both turned by 30 degrees, 6 x 2 and 6 x 2, shifted by 3 along w: 9 x 2 around both, whatever the angle.
    angle = math.pi / 6
    gts = torch.tensor([[[0.0, 0, 6, 2, angle]]])
    priors = torch.tensor([[[3 * math.cos(angle), 3 * math.sin(angle), 6, 2, angle]]])
    overlaps = RotatedOverlaps(priors, torch.ones(1, 1, dtype=torch.bool), gts, [1])
    assert overlaps.diou().item() == pytest.approx(1 / 3 - 9 / 85, rel=1e-4)


def test_rotated_iou_against_opencv() -> None:
    rows = np.hstack([RNG.uniform(0, 60, (60, 2)), RNG.uniform(5, 50, (60, 2)), RNG.uniform(-3, 3, (60, 1))])
    boxes = torch.tensor(rows)
    found = rotated_iou(boxes, boxes[:7])
    polygons = corners(boxes).float().numpy()
    for i, one in enumerate(polygons):
        for j, two in enumerate(polygons[:7]):
            inner = cv2.intersectConvexConvex(one, two)[0]
            union = rows[i, 2] * rows[i, 3] + rows[j, 2] * rows[j, 3] - inner
            assert found[i, j].item() == pytest.approx(inner / union, abs=1e-3)
    np.testing.assert_allclose(rotated_iou(boxes[:7], boxes[:7], aligned=True), np.ones(7), rtol=1e-5)
    assert rotated_iou(boxes, boxes[:0]).shape == (60, 0)
    assert rotated_iou(boxes[:0], boxes[:0], aligned=True).shape == (0,)


def test_membership_at_the_lower_end() -> None:
    # Two priors, one level: IoU 1 and 1/2 (a quarter turn changes nothing), alpha = 3/4 + sqrt(1/8) = 1.1036.
    priors = torch.tensor([[0.0, 0, 8, 4, 0.0], [0.0, 0, 8, 2, 0.0]])
    gt = torch.tensor([[0.0, 0, 4, 8, math.pi / 2]])
    batch = batch_of([priors], [gt])
    alpha = 0.75 + math.sqrt(0.125)
    inside = main_and_vlr_region(batch, recipe="default", gamma=0.5 / alpha - 1e-4)
    np.testing.assert_allclose(inside, [[1, 0.5]], rtol=1e-5)
    outside = main_and_vlr_region(batch, recipe="default", gamma=0.5 / alpha + 1e-4)
    np.testing.assert_allclose(outside, [[1, 0]], rtol=1e-5)
    batch = batch_of([priors], [gt], valid=torch.tensor([[True, False]]))
    assert main_and_vlr_region(batch, recipe="default", gamma=0.1).tolist() == [[0, 0]]  # alpha of one is no number


def test_assignment_looks_at_the_rotated_box(anchors: list[torch.Tensor]) -> None:
    gt = torch.tensor([[128.0, 128, 120, 24, math.pi / 4]])
    batch = batch_of(anchors, [gt])
    index = assign_atss(batch.overlaps)
    centres = torch.cat(anchors)[index[0] >= 0, :2] - 128
    assert len(centres)
    # Inside a box along the diagonal: as far across as 12 pixels.
    across = (centres[:, 1] - centres[:, 0]).abs() / math.sqrt(2)
    assert (across < 12).all()


def test_published_terms(oracle: Any) -> None:
    weights = oracle["loss.w"][None]
    student, teacher = (
        HeadOutputs(oracle[f"loss.cls_{which}"][None], oracle[name].view(1, -1, 5, 9))
        for which, name in (("s", "dist.logits"), ("t", "loss.teacher"))
    )
    levels = [torch.zeros(50, 5)]
    batch = batch_of(levels, [torch.zeros(0, 5)], student=student, teacher=teacher)
    localization = RotatedLocalizationKD(region="main_and_vlr", weight=10, temperature=5)
    classes = RotatedClassificationKD(region="main_and_vlr", weight=20, temperature=5)
    np.testing.assert_allclose(localization(batch, weights, recipe="published"), oracle["loss.ld"], rtol=1e-5)
    np.testing.assert_allclose(classes(batch, weights, recipe="published"), oracle["loss.kd"], rtol=1e-5)


def test_terms_by_level_and_by_positives() -> None:
    # Two levels of two locations, one distribution of two bins: KL(1/2, 1/2 | 1/4, 3/4) is 0.143841, over two bins.
    bins = torch.tensor([0.25, 0.75]).log()
    student = HeadOutputs(torch.zeros(1, 4, 1), bins.expand(1, 4, 5, 2).clone().requires_grad_())
    teacher = HeadOutputs(torch.zeros(1, 4, 1), torch.zeros(1, 4, 5, 2))
    levels = [torch.zeros(2, 5), torch.zeros(2, 5)]
    labels = torch.tensor([[0, 0, 0, 1]])
    batch = batch_of(levels, [torch.zeros(0, 5)], student=student, teacher=teacher, labels=labels)
    weights = torch.tensor([[1.0, 0, 0.5, 0.25]])
    term = RotatedLocalizationKD(region="main_and_vlr", weight=2)
    unit = 0.1438410 / 2
    published = term(batch, weights, recipe="published")
    assert published.item() == pytest.approx(2 * 5 * unit * (1 / 1 + 0.75 / 2), rel=1e-5)
    assert term(batch, weights, recipe="default").item() == pytest.approx(2 * unit * 1.75 / 3, rel=1e-5)
    main = RotatedLocalizationKD(region="main", weight=2)
    # Scores are 1/2 on three positives.
    assert main(batch, weights, recipe="default").item() == pytest.approx(2 * unit * 1.75 / 1.5, rel=1e-5)
    published.backward()
    assert student.edge_logits is not None
    assert student.edge_logits.grad is not None
    assert not student.edge_logits.grad[0, 1].any()
    assert (student.edge_logits.grad[0, 0, :, 1] > 0).all()
    empty = term(batch, torch.zeros(1, 4), recipe="published")
    assert empty.item() == 0
