from __future__ import annotations

import ld_deploy  # noqa: F401 - gives mmcv-lite its operators, so it comes before mmcv

# isort: split

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS

from ld_deploy.rotated.boxes import quarter_turned
from ld_deploy.rotated.losses import (
    DISTANCES,
    GaussianBoxLoss,
    TargetKLDLoss,
    kullback_leibler,
    squared_wasserstein,
)
from ld_runtime.errors import ConfigError

ORACLE = Path(__file__).parents[2] / "oracles" / "rotated_ld.npz"
RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def oracle() -> Any:
    with np.load(ORACLE) as arrays:
        return {name: torch.as_tensor(arrays[name]) for name in arrays.files if name.startswith("gd")}


def random_pairs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = np.hstack(
        [RNG.uniform(-40, 40, (count, 2)), np.exp(RNG.uniform(0, 5, (count, 2))), RNG.uniform(-4, 4, (count, 1))]
    )
    shift = RNG.normal(0, 1, (count, 5)) * [9, 9, 0, 0, 0.8]
    other = rows + shift
    other[:, 2:4] *= np.exp(RNG.normal(0, 0.5, (count, 2)))
    return torch.tensor(rows), torch.tensor(other)


def covariance(box: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    cos, sin = math.cos(box[4]), math.sin(box[4])
    turn = np.array([[cos, -sin], [sin, cos]])
    return turn @ np.diag(box[2:4] ** 2 / 4) @ turn.T


def wasserstein_of_matrices(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    first, second = covariance(a), covariance(b)
    values, vectors = np.linalg.eigh(first)
    root = vectors @ np.diag(np.sqrt(values)) @ vectors.T
    inner = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    return float(((a[:2] - b[:2]) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * inner)


def kl_of_matrices(inverted: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> float:
    first, second = covariance(inverted), covariance(other)
    inverse, shift = np.linalg.inv(first), other[:2] - inverted[:2]
    logarithm = math.log(np.linalg.det(first) / np.linalg.det(second))
    return float(0.5 * (shift @ inverse @ shift + np.trace(inverse @ second) + logarithm - 2))


def test_distances_equal_those_of_the_matrices() -> None:
    pred, target = random_pairs(200)
    rows = list(zip(pred.numpy(), target.numpy(), strict=True))
    wasserstein = [wasserstein_of_matrices(*row) for row in rows]
    np.testing.assert_allclose(squared_wasserstein(pred, target), wasserstein, rtol=1e-7, atol=1e-6)
    np.testing.assert_allclose(kullback_leibler(pred, target), [kl_of_matrices(*row) for row in rows], rtol=1e-7)
    reverse = [kl_of_matrices(b, a) for a, b in rows]
    np.testing.assert_allclose(kullback_leibler(target, pred), reverse, rtol=1e-7)
    # In float32 too: written with angles, nothing large is subtracted from something large.
    np.testing.assert_allclose(squared_wasserstein(pred.float(), target.float()), wasserstein, rtol=2e-4, atol=1e-3)


def test_distances_by_hand() -> None:
    # 8 x 4 and 4 x 8 at one place: deviations (4, 2) and (2, 4): W^2 = 4 + 4; KL = (1/4 + 4) / 2 - 1, no determinant.
    first = torch.tensor([[3.0, 4.0, 8.0, 4.0, 0.0]])
    second = torch.tensor([[3.0, 4.0, 4.0, 8.0, 0.0]])
    assert squared_wasserstein(first, second).item() == pytest.approx(8)
    assert kullback_leibler(first, second).item() == pytest.approx(1.125)
    # Shifted by 2 along w: 4 more, and (2 / 4)^2 / 2 more; alpha = 2 counts shapes four times as much as places.
    moved = second + torch.tensor([2.0, 0, 0, 0, 0])
    assert squared_wasserstein(first, moved).item() == pytest.approx(12)
    assert kullback_leibler(first, moved).item() == pytest.approx(1.25)
    assert squared_wasserstein(first, moved, alpha=2).item() == pytest.approx(36)
    assert kullback_leibler(first, moved, alpha=2).item() == pytest.approx(1.125 + 0.125 / 4)


@pytest.mark.parametrize("distance", sorted(DISTANCES))
def test_a_box_is_the_same_however_it_is_written(distance: str) -> None:
    pred, target = random_pairs(50)
    loss = GaussianBoxLoss(distance=distance, reduction="none")
    value = loss(pred, target)
    half_turn = torch.tensor([0, 0, 0, 0, math.pi])
    for one, two in ((quarter_turned(pred), target), (pred, quarter_turned(target)), (pred + half_turn, target)):
        np.testing.assert_allclose(loss(one, two), value, rtol=1e-3, atol=1e-5)
    assert (loss(pred, quarter_turned(pred)) < 1e-2).all()


@pytest.mark.parametrize("distance", sorted(DISTANCES))
def test_published_losses(oracle: Any, distance: str) -> None:
    pred, target, weight = oracle["gd.pred"], oracle["gd.target"], oracle["gd.weight"]
    loss = GaussianBoxLoss(distance=distance, tau=0, loss_weight=5)
    values = loss(pred, target, reduction_override="none") / 5
    np.testing.assert_allclose(values, oracle[f"gd.{distance}.none"], rtol=1e-4, atol=1e-6)
    total = loss(pred, target, weight, avg_factor=17.0)
    np.testing.assert_allclose(total, oracle[f"gd.{distance}"], rtol=1e-5)


def test_published_kld_v1(oracle: Any) -> None:
    arguments = oracle["gd.pred"], oracle["gd.target"], oracle["gd.weight"]
    loss = MODELS.build({"type": "TargetKLDLoss", "published": True})
    values = loss(*arguments, avg_factor=7.0)
    assert values.shape == (25, 1)
    np.testing.assert_allclose(values, oracle["gd_v1.kld"], rtol=1e-4, atol=1e-6)
    # Ours is a loss as the others are: it is divided by what it is told to be.
    honest = TargetKLDLoss()
    assert honest(*arguments, avg_factor=7.0).item() == pytest.approx(oracle["gd_v1.kld"].sum().item() / 7, rel=1e-4)
    assert honest(*arguments).item() == pytest.approx(oracle["gd_v1.kld"].sum().item() / 50, rel=1e-4)


def test_published_kld_without_positives_is_zero_with_a_gradient() -> None:
    pred = torch.ones(3, 5, requires_grad=True)
    loss = TargetKLDLoss(published=True)(pred, torch.ones(3, 5), torch.zeros(3, 5))
    loss.backward()
    assert loss.item() == 0
    assert pred.grad is not None
    assert not pred.grad.any()


def test_weights_and_reductions() -> None:
    pred, target = random_pairs(4)
    loss = GaussianBoxLoss(distance="kld", loss_weight=2)
    single = loss(pred, target, reduction_override="none")
    weight = torch.tensor([1.0, 0, 0.5, 0])
    assert loss(pred, target).item() == pytest.approx(single.mean().item())
    assert loss(pred, target, reduction_override="sum").item() == pytest.approx(single.sum().item())
    expected = (single * weight).sum().item() / 3
    assert loss(pred, target, weight, avg_factor=3).item() == pytest.approx(expected, rel=1e-5)
    # A weight for each coordinate, as mmdet's anchor heads have it, means its mean.
    wide = weight[:, None].expand(-1, 5)
    assert loss(pred, target, wide, avg_factor=3).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("transform", "tau", "expected"), [("none", 0, 3), ("sqrt", 0, 3**0.5), ("log1p", 0, np.log(4))]
)
def test_transforms_by_hand(transform: Any, tau: float, expected: float) -> None:
    # Equal boxes 3 pixels apart: their Wasserstein distance is 3.
    first, second = torch.tensor([[0.0, 0, 8, 4, 0.3]]), torch.tensor([[3.0, 0, 8, 4, 0.3]])
    loss = GaussianBoxLoss(transform=transform, tau=tau, normalize=False)
    assert loss(first, second).item() == pytest.approx(expected, rel=1e-5)
    bounded = GaussianBoxLoss(transform=transform, tau=2, normalize=False)
    assert bounded(first, second).item() == pytest.approx(1 - 1 / (2 + expected), rel=1e-5)
    # Over twice the eighth root of the product of both determinants, (4 * 2)^2 each.
    sized = GaussianBoxLoss(transform="none", tau=0)
    assert sized(first, second).item() == pytest.approx(3 / (2 * (64 * 64) ** (1 / 8)), rel=1e-5)


DEGENERATE = [
    [0.0, 0, 0, 0, 0],
    [5.0, 5, 0, 30, 1],
    [5.0, 5, -3, 4, 1],
    [5.0, 5, 1e-7, 1e7, 1],
    [1e5, -1e5, 3, 4, 100],
    [0.0, 0, 10, 10, 0.3],
    [0.0, 0, 1e9, 1e-9, 0.3],
]


@pytest.mark.parametrize("distance", [*sorted(DISTANCES), "target"])
def test_degenerate_boxes_have_finite_losses_and_gradients(distance: str) -> None:
    every = torch.tensor(DEGENERATE)
    pred = every.repeat_interleave(len(every), dim=0).requires_grad_()
    target = every.repeat(len(every), 1)
    loss = TargetKLDLoss() if distance == "target" else GaussianBoxLoss(distance=distance)
    value = loss(pred, target)
    value.backward()
    assert value.isfinite()
    assert pred.grad is not None
    assert pred.grad.isfinite().all()


@pytest.mark.parametrize("distance", [*sorted(DISTANCES), "target"])
def test_descent_leads_to_the_target(distance: str) -> None:
    target = torch.tensor([[10.0, 20, 40, 12, 0.5]])
    pred = torch.tensor([[14.0, 17, 30, 15, 0.9]], requires_grad=True)
    loss = TargetKLDLoss() if distance == "target" else GaussianBoxLoss(distance=distance)
    optimiser = torch.optim.Adam([pred], lr=0.05)
    first = loss(pred, target).item()
    for _ in range(300):
        optimiser.zero_grad()
        loss(pred, target).backward()
        optimiser.step()
    assert loss(pred, target).item() < first / 5
    np.testing.assert_allclose(pred.detach(), target, rtol=0.05, atol=0.05)


def test_gradients_are_those_of_the_function() -> None:
    pred, target = random_pairs(8)
    pred.requires_grad_()
    assert torch.autograd.gradcheck(squared_wasserstein, (pred, target))
    assert torch.autograd.gradcheck(kullback_leibler, (pred, target))


def test_no_boxes_are_no_loss() -> None:
    none = torch.zeros(0, 5, requires_grad=True)
    for loss in (GaussianBoxLoss(), TargetKLDLoss(), TargetKLDLoss(published=True)):
        assert loss(none, none, torch.zeros(0)).sum().item() == 0
        assert loss(none, none, torch.zeros(0), avg_factor=1.0).sum().item() == 0


def test_unknown_settings() -> None:
    with pytest.raises(ConfigError, match="gwd, kld, jd"):
        GaussianBoxLoss(distance="giou")
    with pytest.raises(ConfigError, match="none, sqrt, log1p"):
        GaussianBoxLoss(transform="exp")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 1"):
        TargetKLDLoss(tau=0)
