"""The published recipe against what the published code computes, and the default recipe's invariance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.distill.batch import Assignment, DistillBatch, HeadOutputs
from ld_deploy.distill.feature_terms import FeatureKD
from ld_deploy.distill.heads import read_maps
from ld_deploy.distill.overlaps import Overlaps
from ld_deploy.distill.regions import REGIONS
from ld_deploy.distill.terms import ClassificationKD, LocalizationKD, distribution_divergence
from ld_deploy.models import GFLVotingHead
from ld_deploy.models.atss import assign_atss

ORACLES = Path(__file__).parents[1] / "oracles"
# The whole set of arrays, where it lies beside the checkout; a part of it is in ORACLES.
SHARED = Path(__file__).parents[3] / "shared" / "oracles"
STRIDES = (8, 16, 32, 64, 128)


@pytest.fixture(scope="module")
def kd() -> Any:
    return np.load(ORACLES / "kd_loss.npz")


@pytest.fixture(scope="module")
def atss() -> Any:
    return np.load(ORACLES / "atss_vlr_region.npz")


@pytest.fixture(scope="module")
def head_loss() -> Any:
    return np.load(ORACLES / "ld_head_loss.npz")


@pytest.mark.parametrize("case", ["ld17_T10", "ld17_vlr", "kd80_T2", "kd80_T1", "sum"])
def test_divergence_equals_the_published_loss_and_gradient(kd: Any, case: str) -> None:
    temperature, loss_weight, avg_factor = (float(v) for v in kd[f"{case}.cfg"])
    student = torch.tensor(kd[f"{case}.pred"], requires_grad=True)
    values = distribution_divergence(student, torch.tensor(kd[f"{case}.teacher"]), temperature=temperature)
    if f"{case}.weight" in kd:
        values = values * torch.tensor(kd[f"{case}.weight"])
    divisor = {"sum": 1.0}.get(case, avg_factor if avg_factor > 0 else len(values))
    loss = loss_weight * values.sum() / divisor
    loss.backward()
    np.testing.assert_allclose(loss.item(), kd[f"{case}.out"], rtol=1e-5)
    np.testing.assert_allclose(student.grad, kd[f"{case}.grad"], rtol=1e-4, atol=1e-7)


def test_divergence_by_hand() -> None:
    # T = 1, two bins: teacher (1/2, 1/2), student (1/4, 3/4): KL = ln(2)/2 + ln(2/3)/2 = 0.143841, over 2 bins.
    student = torch.tensor([[0.25, 0.75]]).log()
    value = distribution_divergence(student, torch.zeros(1, 2), temperature=1)
    assert value.item() == pytest.approx(0.0719205, abs=1e-6)


def grid_priors(height: int, width: int) -> tuple[torch.Tensor, list[int]]:
    """GFL's priors: a square of 8 strides centred exactly on (x * stride, y * stride)."""
    levels = []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(-(-height // stride)) * stride, torch.arange(-(-width // stride)) * stride, indexing="ij"
        )
        centre = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4).float()
        levels.append(centre + torch.tensor([-4.0, -4.0, 4.0, 4.0]) * stride)
    return torch.cat(levels), [len(level) for level in levels]


def scenes() -> list[str]:
    with np.load(ORACLES / "atss_vlr_region.npz") as arrays:
        return sorted({name.split(".")[0] for name in arrays.files if name.endswith(".vlr")})


def region_batch(
    priors: torch.Tensor, valid: torch.Tensor, gt_boxes: list[torch.Tensor], sizes: list[int]
) -> DistillBatch:
    """A batch of which only priors and ground truth are looked at: (L, 4) priors for each image."""
    images, locations = len(gt_boxes), len(priors)
    outputs = HeadOutputs(torch.zeros(images, locations, 1), None)
    assigned = Assignment(
        priors=priors.expand(images, -1, -1),
        valid=valid.expand(images, -1),
        labels=torch.ones(images, locations, dtype=torch.long),
        level_sizes=sizes,
    )
    return DistillBatch(outputs, outputs, assigned, gt_boxes)


@pytest.mark.parametrize("iof", [True, False])
@pytest.mark.parametrize("scene", scenes())
def test_vlr_equals_the_published_region(atss: Any, scene: str, *, iof: bool) -> None:
    height, width = (int(v) for v in atss[f"{scene}.hw"])
    priors, sizes = grid_priors(height, width)
    assert sizes == atss[f"{scene}.num_level"].tolist() or f"{scene}.anchor_mask" in atss
    mask = torch.tensor(atss[f"{scene}.anchor_mask"]) if f"{scene}.anchor_mask" in atss else torch.ones(len(priors))
    valid = mask.bool()
    # Two more images beside it: padding the ground truth changes nothing.
    gts = torch.tensor(atss[f"{scene}.gts"])
    batch = region_batch(priors, valid, [torch.zeros(0, 4), gts, torch.cat([gts, gts + 3])], sizes)
    weights = REGIONS["vlr"](batch, recipe="published" if iof else "default")[1, valid].numpy()
    expected = atss[f"{scene}.{'vlr' if iof else 'vlr_true_diou'}"]
    np.testing.assert_array_equal(weights > 0, expected > 0)
    np.testing.assert_allclose(weights, expected, atol=1e-6)


@pytest.mark.parametrize("scene", scenes())
def test_batched_atss_equals_the_published_assignment(atss: Any, scene: str) -> None:
    height, width = (int(v) for v in atss[f"{scene}.hw"])
    priors, sizes = grid_priors(height, width)
    mask = torch.tensor(atss[f"{scene}.anchor_mask"]) if f"{scene}.anchor_mask" in atss else torch.ones(len(priors))
    gts = torch.tensor(atss[f"{scene}.gts"])
    batch = region_batch(priors, mask.bool(), [gts[:0], gts, torch.cat([gts + 3, gts])], sizes)
    found = assign_atss(batch.overlaps)
    np.testing.assert_array_equal(found[1, mask.bool()] + 1, atss[f"{scene}.gt_inds"])
    assert (found[0] == -1).all()
    np.testing.assert_allclose(batch.overlaps.alpha[1, : len(gts)], atss[f"{scene}.thr"], rtol=1e-5)


def test_vlr_without_ground_truth_or_with_one_prior_is_empty() -> None:
    priors, sizes = grid_priors(64, 64)
    valid = torch.ones(len(priors), dtype=torch.bool)
    assert (
        REGIONS["vlr"](region_batch(priors, valid, [torch.zeros(0, 4)], sizes), recipe="default").count_nonzero() == 0
    )
    only = torch.zeros(len(priors), dtype=torch.bool)
    only[5] = True
    batch = region_batch(priors, only, [torch.tensor([[0.0, 0.0, 30.0, 30.0]])], sizes)
    assert REGIONS["vlr"](batch, recipe="default").count_nonzero() == 0


def test_overlaps_by_hand() -> None:
    # Two squares of side 2, one px apart in x: intersection 2, union 6; centres 1 apart, enclosing box 3 x 2.
    priors, gts = torch.tensor([[[0.0, 0.0, 2.0, 2.0]]]), [torch.tensor([[1.0, 0.0, 3.0, 2.0]])]
    overlaps = Overlaps.of(priors, torch.ones(1, 1, dtype=torch.bool), gts, level_sizes=[1])
    assert (overlaps.iou.item(), overlaps.squared_distance.item()) == pytest.approx((1 / 3, 1.0))
    assert overlaps.diou().item() == pytest.approx(1 / 3 - 1 / 13)
    assert overlaps.diou(iof=True).item() == pytest.approx(1 / 2 - 1 / 13)


class Case:
    """One stored whole-head case, its images repeated `times` times."""

    def __init__(self, arrays: Any, name: str, *, times: int = 1) -> None:
        def maps(kind: str) -> list[torch.Tensor]:
            return [torch.tensor(arrays[f"{name}.{kind}.{level}"]).float().repeat(times, 1, 1, 1) for level in range(5)]

        self.student = (
            [tensor.requires_grad_() for tensor in maps("s_cls")],
            [t.requires_grad_() for t in maps("s_reg")],
        )
        self.teacher = maps("t_cls"), maps("t_reg")
        self.features = [maps(kind) if f"{name}.{kind}.0" in arrays else [] for kind in ("s_x", "t_x")]
        for level in self.features[0]:
            level.requires_grad_()
        images = len([key for key in arrays.files if key.startswith(f"{name}.gt.")])
        self.instances = [
            InstanceData(
                bboxes=torch.tensor(arrays[f"{name}.gt.{i}"]).reshape(-1, 4),
                labels=torch.tensor(arrays[f"{name}.gtl.{i}"]),
            )
            for i in range(images)
        ] * times
        self.metas = [{"img_shape": (160, 192), "pad_shape": (160, 192)}] * len(self.instances)
        head = {
            "num_classes": 20, "in_channels": 32, "feat_channels": 32, "stacked_convs": 1,
            "anchor_generator": {
                "type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1,
                "strides": list(STRIDES),
            },
            "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
            "loss_dfl": {"type": "DistributionFocalLoss", "loss_weight": 0.25},
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            "train_cfg": {"assigner": {"type": "ATSSAssigner", "topk": 9}, "allowed_border": -1, "pos_weight": -1},
        }  # fmt: skip
        self.head = GFLVotingHead(**head)

    def detection_losses(self) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = self.head.loss_by_feat(*self.student, self.instances, self.metas)
        return losses

    def batch(self) -> DistillBatch:
        assert self.head.assigned is not None
        return DistillBatch(
            student=read_maps(self.head, self.student),
            teacher=read_maps(self.head, self.teacher),
            assigned=self.head.assigned,
            gt_boxes=[each.bboxes for each in self.instances],
            student_features=self.features[0],
            teacher_features=self.features[1],
        )


PUBLISHED = {
    "loss_ld": LocalizationKD(region="main", weight=0.25, temperature=10),
    "loss_ld_vlr": LocalizationKD(region="vlr", weight=0.25, temperature=10),
    "loss_kd": ClassificationKD(region="main", weight=10, temperature=2),
}
DEFAULT = {**PUBLISHED, "loss_kd_vlr": ClassificationKD(region="vlr", weight=10, temperature=2)}


IMITATION = {"gibox": "gi", "finegrained": "fine_grained", "fitnet": "inside_gt"}  # the published code's names


def whole_cases() -> list[tuple[str, bool]]:
    """Names of the stored GFL cases, and whether it is looked for in the whole set."""
    whole = [] if not SHARED.is_dir() else ["gibox1", "gibox2", "gibox3", "finegrained2", "fitnet2"]
    return [("gibox1", False), ("gibox3", False)] + [(name, True) for name in whole]


@pytest.mark.parametrize(("name", "whole"), whole_cases())
def test_published_recipe_equals_the_published_head(head_loss: Any, name: str, *, whole: bool) -> None:
    arrays = np.load(SHARED / "ld_head_loss.npz") if whole else head_loss
    case = Case(arrays, name)
    total = torch.zeros(())
    for key, loss in case.detection_losses().items():
        np.testing.assert_allclose(loss.item(), arrays[f"{name}.{key}"].sum(), rtol=1e-4)
        total = total + loss
    batch = case.batch()
    terms: dict[str, Any] = dict(PUBLISHED)
    if case.features[0]:
        region = IMITATION[name.rstrip("0123456789")]
        terms["loss_im"] = FeatureKD(region=region, weight=2)
        terms["loss_im"].connect(256, 256)
    for key, term in terms.items():
        loss = term(batch, REGIONS[term.region](batch, recipe="published"), recipe="published")
        np.testing.assert_allclose(loss.item(), arrays[f"{name}.{key}"].sum(), rtol=1e-4)
        total = total + loss
    if f"{name}.grad_cls.0" not in arrays:
        return
    total.backward()
    for kind, maps in zip(("cls", "reg"), case.student, strict=True):
        for level, tensor in enumerate(maps):
            np.testing.assert_allclose(tensor.grad, arrays[f"{name}.grad_{kind}.{level}"], rtol=1e-3, atol=1e-6)
    if case.features[0]:
        sums = [0 if each.grad is None else each.grad.abs().sum().item() for each in case.features[0]]
        np.testing.assert_allclose(sums, arrays[f"{name}.grad_x_abs_sum"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("case", ["finegrained2", "gi_of_one_level"])
def test_published_imitation_is_a_mean_per_level_with_positives(head_loss: Any, case: str) -> None:
    # By hand on the stored ground truth: features are 1 apart on the first level and 2 apart on the second.
    batch = Case(head_loss, "gibox1")
    batch.features = [
        [torch.zeros(1, 8, *level.shape[2:]) for level in batch.student[0]],
        [torch.full((1, 8, *level.shape[2:]), float(i + 1)) for i, level in enumerate(batch.student[0])],
    ]
    batch.detection_losses()
    view = batch.batch()
    region = "fine_grained" if case == "finegrained2" else "gi"
    term = FeatureKD(region=region, weight=2)
    weights = REGIONS[region](view, recipe="published")
    # Of this case only the first level has positives: the others are inside the region and count nothing.
    assert term(view, weights, recipe="published").item() == pytest.approx(2 * 1)
    members = REGIONS[region](view, recipe="default")
    inside = [int((part > 0).sum()) for part in members.split(view.assigned.level_sizes, dim=1)]
    expected = 2 * sum(count * (i + 1) ** 2 for i, count in enumerate(inside)) / sum(inside)
    mean = term(view, members, recipe="default").item()
    assert mean == pytest.approx(expected, rel=1e-5)


def totals(arrays: Any, recipe: Any, times: int) -> dict[str, float]:
    case = Case(arrays, "gibox1", times=times)
    losses = {name: loss.item() for name, loss in case.detection_losses().items()}
    batch = case.batch()
    for key, term in DEFAULT.items():
        losses[key] = term(batch, REGIONS[term.region](batch, recipe=recipe), recipe=recipe).item()
    return losses


def test_default_recipe_does_not_depend_on_the_batch_and_published_does(head_loss: Any) -> None:
    once = totals(head_loss, "default", 1)
    assert all(value > 1e-3 for value in once.values())
    for times in (2, 4):
        assert totals(head_loss, "default", times) == pytest.approx(once, rel=1e-5)
    published = {times: totals(head_loss, "published", times) for times in (1, 2)}
    for key in ("loss_ld", "loss_ld_vlr"):
        assert published[2][key] == pytest.approx(2 * published[1][key], rel=1e-5)
    assert published[1]["loss_kd_vlr"] == 0


def test_identical_teacher_and_student_have_no_distillation_loss(head_loss: Any) -> None:
    case = Case(head_loss, "gibox1")
    case.teacher = ([t.detach() for t in case.student[0]], [t.detach() for t in case.student[1]])
    case.detection_losses()
    batch = case.batch()
    for term in DEFAULT.values():
        loss = term(batch, REGIONS[term.region](batch, recipe="default"), recipe="default")
        assert loss.item() == pytest.approx(0, abs=1e-6)


def test_image_without_ground_truth_gives_zero_and_finite_gradients(head_loss: Any) -> None:
    case = Case(head_loss, "gibox1")
    case.instances = [InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))]
    losses = case.detection_losses()
    assert losses["loss_cls"].sum() > 0
    assert losses["loss_bbox"].sum() == 0
    batch = case.batch()
    for recipe in ("default", "published"):
        total = sum(term(batch, REGIONS[term.region](batch, recipe=recipe), recipe=recipe) for term in DEFAULT.values())
        assert total.item() == 0
        total.backward(retain_graph=True)
    assert all(torch.isfinite(t.grad).all() for maps in case.student for t in maps)


def test_default_recipe_is_the_published_sums_over_the_detection_normalisers(head_loss: Any) -> None:
    case = Case(head_loss, "gibox1")
    case.detection_losses()
    batch = case.batch()
    main, vlr = (REGIONS[name](batch, recipe="default") for name in ("main", "vlr"))
    terms = {
        key: term(batch, main if term.region == "main" else vlr, recipe="default") for key, term in DEFAULT.items()
    }
    weight_sum = sum(score.sigmoid().max() for score in batch.student.class_logits[batch.positive])
    count = int(batch.positive.sum())
    assert weight_sum > 1
    assert terms["loss_ld"].item() == pytest.approx(head_loss["gibox1.loss_ld"].sum() / weight_sum.item(), rel=1e-4)
    # One level has positives, so the published mean per level is the mean over all of them.
    assert terms["loss_kd"].item() == pytest.approx(head_loss["gibox1.loss_kd"].sum(), rel=1e-4)
    # The published VLR sum is divided by 4 more, and over another region: put the default's region through it.
    published = PUBLISHED["loss_ld_vlr"](batch, vlr, recipe="published")
    assert terms["loss_ld_vlr"].item() == pytest.approx(published.item() * 4 / count, rel=1e-4)
    assert not torch.equal(vlr, REGIONS["vlr"](batch, recipe="published"))
