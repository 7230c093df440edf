"""Regions by hand, by property, and against what the published code selects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.distill.batch import Assignment, DistillBatch, HeadOutputs
from ld_deploy.distill.overlaps import Overlaps
from ld_deploy.distill.regions import REGIONS, parse_region
from ld_deploy.models.atss import assign_atss
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

ORACLES = Path(__file__).parents[1] / "oracles"
STRIDES = (8, 16, 32, 64, 128)


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


def outputs(logits: torch.Tensor, boxes: torch.Tensor | None = None) -> HeadOutputs:
    return HeadOutputs(logits, None, decode=None if boxes is None else lambda: boxes)


def batch_of(
    *,
    priors: torch.Tensor,
    gts: Sequence[torch.Tensor],
    student: HeadOutputs | None = None,
    teacher: HeadOutputs | None = None,
    sizes: list[int] | None = None,
    **changes: Any,
) -> DistillBatch:
    """A batch around priors (L, 4) that all images share, one class, no positives unless `labels` says so."""
    shape = len(gts), len(priors)
    plain = outputs(torch.zeros(*shape, 1))
    assigned = Assignment(
        priors=priors.expand(len(gts), -1, -1),
        valid=changes.pop("valid", torch.ones(shape, dtype=torch.bool)),
        labels=changes.pop("labels", torch.ones(shape, dtype=torch.long)),
        level_sizes=sizes or [len(priors)],
        **changes,
    )
    return DistillBatch(student or plain, teacher or plain, assigned, gts)


@pytest.mark.parametrize("scene", ["a", "b", "c"])
def test_imitation_regions_equal_the_published_ones(scene: str) -> None:
    arrays = np.load(ORACLES / "imitation_region.npz")
    priors, sizes = grid_priors(320, 416)
    assert sizes == arrays[f"{scene}.num_level"].tolist()
    gts = torch.tensor(arrays[f"{scene}.gts"])
    batch = batch_of(priors=priors, gts=[gts[:0], gts, torch.cat([gts, gts + 7])], sizes=sizes)
    for name, key in (("fine_grained", "finegrained"), ("inside_gt", "inside_gt")):
        weights = REGIONS[name](batch, recipe="default")
        np.testing.assert_array_equal(weights[1].numpy(), arrays[f"{scene}.{key}"])
        assert weights[0].count_nonzero() == 0  # an image without ground truth


def gi_batch() -> DistillBatch:
    """The two stored images as one level of 520 locations each; the winner's boxes serve as both models'."""
    arrays = np.load(ORACLES / "gi_region.npz")
    logits = [torch.tensor(arrays[f"two.{role}_logit"]).view(2, 520, 20) for role in ("student", "teacher")]
    boxes = torch.tensor(arrays["two.gi_box"]).view(2, 520, 4)
    labels = torch.zeros(2, 520, dtype=torch.long)  # positives: the published code drops a level without any
    return batch_of(
        priors=torch.zeros(520, 4), gts=[torch.zeros(0, 4)] * 2, labels=labels,
        student=outputs(logits[0], boxes), teacher=outputs(logits[1], boxes),
    )  # fmt: skip


def test_gi_region_of_each_image_and_of_the_published_batch() -> None:
    arrays = np.load(ORACLES / "gi_region.npz")
    batch = gi_batch()
    for recipe, key in (("default", "two.per_image_idx"), ("published", "two.idx")):
        chosen = REGIONS["gi"](batch, recipe=recipe).flatten().nonzero()[:, 0]
        assert chosen.tolist() == sorted(arrays[key].tolist())


def test_gi_boxes_are_those_of_the_surer_model() -> None:
    # Location 0: the teacher is surer; 1: the student. Their winners' boxes are far apart, the losers' coincide.
    near, far = torch.tensor([0.0, 0.0, 8.0, 8.0]), torch.tensor([50.0, 50.0, 58.0, 58.0])
    student = outputs(torch.tensor([[[-9.0], [9.0]]]), torch.stack([near, far])[None])
    teacher = outputs(torch.tensor([[[8.0], [-9.0]]]), torch.stack([near, near])[None])
    batch = batch_of(priors=torch.zeros(2, 4), gts=[torch.zeros(0, 4)], student=student, teacher=teacher)
    assert REGIONS["gi"](batch, recipe="default").tolist() == [[1, 1]]
    # With the winners at one place, only the larger difference stays.
    same = batch_of(
        priors=torch.zeros(2, 4), gts=[torch.zeros(0, 4)], teacher=teacher,
        student=outputs(torch.tensor([[[-9.0], [9.0]]]), torch.stack([far, near])[None]),
    )  # fmt: skip
    assert REGIONS["gi"](same, recipe="default").tolist() == [[0, 1]]


def test_gi_leaves_out_what_does_not_differ_and_invalid_priors() -> None:
    boxes = torch.arange(4).view(1, 4, 1) * 20 + torch.tensor([0.0, 0.0, 8.0, 8.0])
    teacher = outputs(torch.tensor([[[0.0], [1.0], [2.0], [3.0]]]), boxes)
    student = outputs(torch.zeros(1, 4, 1), boxes)
    valid = torch.tensor([[True, True, False, True]])
    batch = batch_of(priors=torch.zeros(4, 4), gts=[torch.zeros(0, 4)], student=student, teacher=teacher, valid=valid)
    assert REGIONS["gi"](batch, recipe="default").tolist() == [[0, 1, 0, 1]]
    assert REGIONS["gi"](batch, recipe="default", per_level=1).tolist() == [[0, 0, 0, 1]]
    equal = batch_of(priors=torch.zeros(4, 4), gts=[torch.zeros(0, 4)], student=student, teacher=student)
    assert REGIONS["gi"](equal, recipe="default").count_nonzero() == 0


PRIORS = torch.tensor([[0.0, 0.0, 4.0, 4.0], [4.0, 0.0, 8.0, 4.0], [8.0, 0.0, 12.0, 4.0], [12.0, 0.0, 16.0, 4.0]])


def test_inside_gt_is_strict() -> None:
    # Centres at x = 2, 6, 10, 14; the box ends on the first and the third.
    batch = batch_of(priors=PRIORS, gts=[torch.tensor([[2.0, 0.0, 10.0, 4.0]])])
    assert REGIONS["inside_gt"](batch, recipe="default").tolist() == [[0, 1, 0, 0]]


def test_defeat_weights_sum_to_one_inside_and_two_outside() -> None:
    gts = [torch.tensor([[0.0, 0.0, 7.0, 4.0]]), torch.zeros(0, 4)]
    weights = REGIONS["foreground_background"](batch_of(priors=PRIORS, gts=gts), recipe="default")
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]]))


def test_score_regions_by_hand() -> None:
    logits = torch.tensor([[[0.0, -1.0], [2.0, 0.0], [-30.0, -30.0], [0.0, 0.0]]])
    teacher = outputs(logits)
    batch = batch_of(priors=PRIORS, gts=[torch.zeros(0, 4)], teacher=teacher, student=outputs(torch.zeros(1, 4, 2)))
    assert REGIONS["teacher_score"](batch, recipe="default")[0].tolist() == pytest.approx(
        [0.5, 0.880797, 0, 0.5], abs=1e-6
    )
    gap = REGIONS["score_gap"](batch, recipe="default")[0].tolist()
    assert gap == pytest.approx([0.231059, 0.380797, 0.5, 0], abs=1e-6)
    valid = torch.tensor([[False, True, False, True]])
    partly = batch_of(priors=PRIORS, gts=batch.gt_boxes, teacher=teacher, student=batch.student, valid=valid)
    for name, expected in (("teacher_score", [0, 0.880797, 0, 0.5]), ("score_gap", [0, 0.380797, 0, 0])):
        assert REGIONS[name](partly, recipe="default")[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_main_and_full() -> None:
    labels = torch.tensor([[0, 2, 1, 2]])
    student = outputs(torch.tensor([[[0.0, 2.0], [9.0, 9.0], [-1.0, -2.0], [0.0, 0.0]]]))
    valid = torch.tensor([[True, True, True, False]])
    batch = batch_of(priors=PRIORS, gts=[torch.zeros(0, 4)], student=student, labels=labels, valid=valid)
    main = REGIONS["main"](batch, recipe="default")[0].tolist()
    assert main == pytest.approx([0.880797, 0, 0.268941, 0], abs=1e-6)
    assert REGIONS["full"](batch, recipe="default").tolist() == [[1, 1, 1, 0]]


def test_vlr_band_moves_with_gamma_and_leaves_positives_out_when_asked() -> None:
    priors, sizes = grid_priors(160, 160)
    gts = [torch.tensor([[30.0, 40.0, 100.0, 120.0]])]
    wide, narrow = (
        REGIONS["vlr"](batch_of(priors=priors, gts=gts, sizes=sizes), recipe="default", gamma=gamma)[0] > 0
        for gamma in (0.0, 0.75)
    )
    assert narrow.any()
    assert wide.sum() > narrow.sum()
    assert not (narrow & ~wide).any()
    labels = torch.ones(1, len(priors), dtype=torch.long)
    labels[0, narrow.nonzero()[0]] = 0
    batch = batch_of(priors=priors, gts=gts, sizes=sizes, labels=labels)
    left = REGIONS["vlr"](batch, recipe="default", gamma=0.75, exclude_positives=True)[0] > 0
    assert (narrow & ~left).sum() == 1


def test_vlr_band_holds_its_lower_end_and_not_its_upper() -> None:
    # Two priors of IoU 60 / 64 around the centre: alpha is 0.9375, and so is their DIoU. The third is half of the box:
    # IoU 0.5, centres 2 apart, diagonal^2 128: DIoU 0.46875, half of alpha. All numbers are exact in float32.
    priors = torch.tensor([[0.25, 0.0, 7.75, 8.0], [0.0, 0.25, 8.0, 7.75], [0.0, 0.0, 4.0, 8.0]])
    gts = [torch.tensor([[0.0, 0.0, 8.0, 8.0]])]
    overlaps = Overlaps.of(priors[None], torch.ones(1, 3, dtype=torch.bool), gts, level_sizes=[3], top_k=2)
    assert overlaps.alpha.item() == 0.9375
    assert overlaps.diou()[0, :, 0].tolist() == [0.9375, 0.9375, 0.46875]
    batch = batch_of(priors=priors, gts=gts, overlaps=overlaps)
    assert REGIONS["vlr"](batch, recipe="default", gamma=0.5).tolist() == [[0, 0, 0.5]]
    assert REGIONS["vlr"](batch, recipe="default", gamma=0.501).tolist() == [[0, 0, 0]]
    # ATSS takes what reaches alpha: the first two.
    assert assign_atss(overlaps).tolist() == [[0, 0, -1]]


def test_atss_leaves_out_centres_on_the_edge_of_the_box() -> None:
    # Two priors of the same IoU, which is then alpha; their centre is on the left edge, or 1/16 px inside.
    gts = [torch.tensor([[0.0, 0.0, 8.0, 8.0]])]
    for shift, expected in ((0.0, [[-1, -1]]), (0.0625, [[0, 0]])):
        priors = torch.tensor([[[-8.0 + shift, 0.0, 8.0 + shift, 8.0]] * 2])
        overlaps = Overlaps.of(priors, torch.ones(1, 2, dtype=torch.bool), gts, level_sizes=[2])
        assert assign_atss(overlaps).tolist() == expected


def test_vlr_of_points_is_every_unassigned_one_inside_ground_truth() -> None:
    labels = torch.tensor([[1, 0, 1, 1]])
    student = outputs(torch.tensor([[[0.0], [0.0], [2.0], [0.0]]]))
    batch = batch_of(
        priors=PRIORS, gts=[torch.tensor([[3.0, 0.0, 12.0, 4.0]])], labels=labels, student=student, has_anchors=False
    )
    assert REGIONS["vlr"](batch, recipe="default")[0].tolist() == pytest.approx([0, 0, 0.880797, 0], abs=1e-6)


@pytest.mark.parametrize("name", sorted(REGIONS))
def test_every_region_is_finite_detached_and_of_its_images_alone(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    priors, sizes = grid_priors(96, 96)
    locations = len(priors)
    logits = [torch.randn(3, locations, 4, generator=generator, requires_grad=True) for _ in range(2)]
    boxes = [priors + torch.randn(3, locations, 4, generator=generator) for _ in range(2)]
    gts = [
        torch.tensor([[10.0, 12.0, 60.0, 70.0], [40.0, 5.0, 90.0, 50.0]]),
        torch.zeros(0, 4),
        torch.tensor([[5.0, 5.0, 30.0, 90.0]]),
    ]
    labels = torch.randint(0, 5, (3, locations), generator=generator)

    def weights(order: list[int]) -> torch.Tensor:
        models = [outputs(each[order], box[order]) for each, box in zip(logits, boxes, strict=True)]
        batch = batch_of(
            priors=priors, gts=[gts[i] for i in order], sizes=sizes, labels=labels[order],
            student=models[0], teacher=models[1],
        )  # fmt: skip
        with torch.no_grad():
            return REGIONS[name](batch, recipe="default")

    whole = weights([0, 1, 2])
    assert whole.shape == (3, locations)
    assert torch.isfinite(whole).all()
    assert (whole >= 0).all()
    assert not whole.requires_grad
    torch.testing.assert_close(weights([2, 0, 1, 0]), whole[[2, 0, 1, 0]])


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("all", "no distillation region 'all'; there are: main, vlr"),
        ({"type": "vlr", "beta": 1}, "no option 'beta'; it has: gamma, exclude_positives"),
        ({"gamma": 1}, "no distillation region 'None'"),
        ({"type": "main", "gamma": 1}, "it has: none"),
    ],
)
def test_bad_regions_are_named(region: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_region(region)
