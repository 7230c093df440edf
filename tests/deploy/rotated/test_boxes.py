from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ld_deploy.rotated.boxes import (
    corners,
    from_hulls,
    from_polygons,
    horizontal_hulls,
    in_convention,
    published_hulls,
    quarter_turned,
    wrap_angle,
)
from ld_deploy.rotated.coder import RotatedDeltaCoder, distribution_deltas
from ld_deploy.rotated.priors import RotatedAnchorGenerator

ORACLE = Path(__file__).parents[2] / "oracles" / "rotated_ld.npz"
RNG = np.random.default_rng(0)
CONVENTIONS = ("half_turn", "oc", "le90", "le135")


@pytest.fixture(scope="module")
def oracle() -> Any:
    with np.load(ORACLE) as arrays:
        return {name: torch.as_tensor(arrays[name]) for name in arrays.files}


def random_boxes(count: int) -> torch.Tensor:
    sides = RNG.uniform(2, 80, (count, 2))
    rows = np.hstack([RNG.uniform(-500, 500, (count, 2)), sides, RNG.uniform(-9, 9, (count, 1))])
    return torch.tensor(rows)


def as_set(points: torch.Tensor) -> torch.Tensor:
    """Corners from the one furthest along a direction that no side has: the same for each writing of a box."""
    first = (points @ points.new_tensor([1.0, 0.001])).argmin(dim=1)
    return torch.stack([each.roll(-int(at), dims=0) for each, at in zip(points, first, strict=True)])


def test_corners_and_hull_by_hand() -> None:
    # w = 4 along 30 degrees clockwise, h = 2 across: half w is (sqrt 3, 1), half h is (-1/2, sqrt 3 / 2).
    box = torch.tensor([[10.0, 20.0, 4.0, 2.0, math.pi / 6]], dtype=torch.float64)
    root = math.sqrt(3)
    expected = [
        [10 - root + 0.5, 19 - root / 2],
        [10 + root + 0.5, 21 - root / 2],
        [10 + root - 0.5, 21 + root / 2],
        [10 - root - 0.5, 19 + root / 2],
    ]
    np.testing.assert_allclose(corners(box)[0], expected)
    np.testing.assert_allclose(
        horizontal_hulls(box)[0], [9.5 - root, 19 - root / 2, 10.5 + root, 21 + root / 2], rtol=1e-12
    )


def test_hull_holds_the_corners_at_any_angle() -> None:
    boxes = random_boxes(300)
    points = corners(boxes)
    expected = torch.cat([points.amin(dim=1), points.amax(dim=1)], dim=1)
    np.testing.assert_allclose(horizontal_hulls(boxes), expected)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions_write_the_same_box(convention: Any) -> None:
    boxes = random_boxes(300)
    written = in_convention(boxes, convention=convention)
    np.testing.assert_allclose(as_set(corners(written)), as_set(corners(boxes)), atol=1e-9)
    low, high = {"half_turn": (-2, 2), "oc": (0, 2), "le90": (-2, 2), "le135": (-1, 3)}[convention]
    assert ((written[:, 4] >= low * math.pi / 4) & (written[:, 4] <= high * math.pi / 4)).all()
    if convention == "half_turn":
        np.testing.assert_array_equal(written[:, :4], boxes[:, :4])
    if convention.startswith("le"):
        assert (written[:, 2] >= written[:, 3]).all()
    again = in_convention(quarter_turned(boxes), convention=convention)
    if convention != "half_turn":
        np.testing.assert_allclose(again, written, atol=1e-9)


def test_conventions_at_their_ends() -> None:
    quarter = math.pi / 2

    def angle(value: float, convention: Any) -> float:
        box = torch.tensor([0.0, 0.0, 3.0, 2.0, value], dtype=torch.float64)
        return float(in_convention(box, convention=convention)[4])

    assert angle(quarter, "half_turn") == -quarter
    assert angle(-quarter, "half_turn") == -quarter
    assert angle(quarter, "oc") == quarter
    assert angle(0.0, "oc") == quarter
    assert angle(quarter, "le90") == -quarter
    assert angle(3 * math.pi / 4, "le135") == pytest.approx(-math.pi / 4)
    upright = in_convention(torch.tensor([1.0, 2.0, 3.0, 4.0, 0.0]), convention="oc")
    np.testing.assert_allclose(upright, [1, 2, 4, 3, quarter], rtol=1e-6)


def test_polygons_come_back_as_boxes() -> None:
    boxes = random_boxes(300) + torch.tensor([20000.0, 0, 0, 0, 0])
    found, usable = from_polygons(list(corners(boxes).numpy()))
    assert usable.all()
    assert found.dtype == np.float32
    assert (found[:, 4] >= -np.float32(np.pi / 2)).all()
    assert (found[:, 4] < np.float32(np.pi / 2) + 1e-6).all()
    seen = as_set(corners(torch.tensor(found).double()))
    np.testing.assert_allclose(seen, as_set(corners(boxes)), atol=3e-3)


def test_polygon_of_more_corners_and_of_a_flat_list() -> None:
    # The hexagon's smallest rectangle is the square around it, 10 x 8.
    hexagon = [0, 0, 10, 0, 10, 8, 5, 7, 4, 8, 0, 8]
    found, usable = from_polygons([hexagon])
    assert usable.tolist() == [True]
    assert found[0, :2].tolist() == [5, 4]
    assert sorted(found[0, 2:4].tolist()) == [8, 10]


def test_degenerate_polygons_are_left_out_and_named() -> None:
    line = [0, 0, 9, 0, 18, 0, 3, 0]
    thin = [0, 0, 10, 0, 10, 0.9, 0, 0.9]
    just = [0, 0, 10, 0, 10, 1, 0, 1]
    broken = [0, 0, float("nan"), 0, 10, 5, 0, 5]
    point = [3, 3] * 4
    found, usable = from_polygons([line, thin, just, broken, point, [0, 0, 1, 1]])
    assert usable.tolist() == [False, False, True, False, False, False]
    assert found.shape == (1, 5)
    none, usable = from_polygons([])
    assert none.shape == (0, 5)
    assert usable.shape == (0,)


def test_published_conversions(oracle: Any) -> None:
    boxes = oracle["coder.gt"]
    np.testing.assert_allclose(corners(boxes).flatten(1), oracle["obb2poly_oc"], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(horizontal_hulls(boxes), oracle["obb2xyxy_oc"], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(published_hulls(boxes), oracle["obb2hbb_oc"], rtol=1e-5)
    found, usable = from_polygons(list(oracle["obb2poly_oc"].numpy()))
    assert usable.all()
    np.testing.assert_allclose(
        in_convention(torch.tensor(found), convention="oc"), oracle["poly2obb_oc"], rtol=1e-4, atol=1e-3
    )
    for convention in ("oc", "le90", "le135"):
        wrapped = wrap_angle(oracle["norm_angle.in"], convention=convention)
        np.testing.assert_allclose(wrapped, oracle[f"norm_angle.{convention}"], atol=1e-6)


def test_published_distribution_and_coder(oracle: Any) -> None:
    deltas = distribution_deltas(oracle["dist.logits"])
    np.testing.assert_allclose(deltas, oracle["dist.deltas"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(distribution_deltas(oracle["dist.logits"].view(-1, 5, 9)), deltas)
    coder = RotatedDeltaCoder()
    np.testing.assert_allclose(coder.decode(oracle["dist.anchors"], deltas), oracle["dist.boxes"], rtol=1e-5, atol=1e-4)
    encoded = coder.encode(oracle["dist.anchors"], oracle["coder.gt"])
    np.testing.assert_allclose(encoded, oracle["coder.encode"], rtol=1e-4, atol=1e-5)
    back = coder.decode(oracle["dist.anchors"], encoded)
    np.testing.assert_allclose(back, oracle["coder.roundtrip"], rtol=1e-4)


def test_coder_by_hand() -> None:
    prior = torch.tensor([[10.0, 20.0, 8.0, 4.0, 0.5]])
    deltas = torch.tensor([[0.5, -0.25, math.log(2), -9.0, 0.75]])
    decoded = RotatedDeltaCoder().decode(prior, deltas)
    np.testing.assert_allclose(decoded, [[14, 19, 16, 4 * 16 / 1000, 1.25]], rtol=1e-6)
    wrapped = RotatedDeltaCoder(convention="half_turn").decode(prior, torch.tensor([[0, 0, 0, 0, 2.0]]))
    assert wrapped[0, 4].item() == pytest.approx(2.5 - math.pi)


def test_distribution_by_hand() -> None:
    logits = torch.full((1, 5, 9), -1e4)
    logits[0, 0, 0] = logits[0, 1, 8] = logits[0, 4, 1] = 0
    logits[0, 2, 3:5] = 0
    logits[0, 3] = 0
    np.testing.assert_allclose(distribution_deltas(logits), [[-2, 2, -0.25, 0, -4.125]], atol=1e-6)


def test_priors_are_the_published_ones(oracle: Any) -> None:
    generator = RotatedAnchorGenerator(
        octave_base_scale=4, scales_per_octave=3, ratios=[1.0, 0.5, 2.0], strides=[8, 16, 32, 64, 128]
    )
    sizes = [(-(-256 // stride), -(-256 // stride)) for stride in (8, 16, 32, 64, 128)]
    levels = generator.grid_priors(sizes, device="cpu")
    assert [len(level) for level in levels] == oracle["region.num"].tolist()
    np.testing.assert_allclose(torch.cat(levels)[::97], oracle["region.anchors"], rtol=1e-5, atol=1e-4)


def test_upright_boxes_have_angle_zero() -> None:
    assert from_hulls(torch.tensor([1.0, 2.0, 5.0, 10.0])).tolist() == [3, 6, 4, 8, 0]
    assert from_hulls(torch.zeros(0, 4)).shape == (0, 5)
