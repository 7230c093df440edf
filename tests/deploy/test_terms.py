"""Terms by hand, by property, and against what the published code computes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.distill import terms
from ld_deploy.distill.batch import Assignment, DistillBatch, HeadOutputs
from ld_deploy.distill.cross import align
from ld_deploy.distill.feature_terms import FeatureKD, PearsonKD
from ld_deploy.distill.regions import REGIONS
from ld_deploy.distill.terms import BinaryClassificationKD, ClassificationKD, IoULocalizationKD, LocalizationKD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_deploy.distill.batch import Recipe

ORACLES = Path(__file__).parents[1] / "oracles"
SIZES = [16, 4]  # a 4 x 4 and a 2 x 2 map
CLASSES, BINS, WIDTH = 3, 5, 6


def random_batch(*, images: Sequence[int] = (0, 1, 2), requires_grad: bool = False) -> DistillBatch:
    """A batch of the named images: what an image holds depends on its number alone."""
    rows = []
    for image in images:
        generator = torch.Generator().manual_seed(image)
        locations = sum(SIZES)

        def draw(*shape: int, generator: torch.Generator = generator) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        corners = draw(locations, 2).abs() * 30
        rows.append({
            "logits": [draw(locations, CLASSES) for _ in range(2)],
            "edges": [draw(locations, 4, BINS) * 2 for _ in range(2)],
            "boxes": [
                torch.cat([corners + draw(locations, 2), corners + 20 + draw(locations, 2)], dim=1) for _ in range(2)
            ],
            "labels": torch.randint(0, 6, (locations,), generator=generator).clamp(max=CLASSES),
            "features": [[draw(WIDTH, 4, 4), draw(WIDTH, 2, 2)] for _ in range(2)],
            "gt": torch.tensor([[4.0, 4.0, 30.0, 30.0]]) if image else torch.zeros(0, 4),
        })  # fmt: skip

    def stacked(key: str, model: int) -> torch.Tensor:
        return torch.stack([row[key][model] for row in rows]).requires_grad_(requires_grad and model == 0)

    def head(model: int) -> HeadOutputs:
        boxes = stacked("boxes", model)
        return HeadOutputs(stacked("logits", model), stacked("edges", model), decode=lambda: boxes)

    heads = [head(model) for model in range(2)]
    features = [
        [
            torch.stack([row["features"][model][level] for row in rows]).requires_grad_(requires_grad and model == 0)
            for level in range(2)
        ]
        for model in range(2)
    ]
    centres = torch.arange(sum(SIZES))[:, None] * 2.0
    assigned = Assignment(
        priors=torch.cat([centres - 8, centres - 8, centres + 8, centres + 8], dim=1).expand(len(rows), -1, -1),
        valid=torch.ones(len(rows), sum(SIZES), dtype=torch.bool),
        labels=torch.stack([row["labels"] for row in rows]),
        level_sizes=SIZES,
    )
    return DistillBatch(
        *heads, assigned, [row["gt"] for row in rows], cross=heads[0],
        student_features=features[0], teacher_features=features[1],
    )  # fmt: skip


def value(term: Any, batch: DistillBatch, *, recipe: Recipe = "default") -> torch.Tensor:
    weights = REGIONS[term.region](batch, recipe=recipe, **term.region_options)
    loss: torch.Tensor = term(batch, weights, recipe=recipe)
    return loss


ALL_TERMS = {
    "ld main": LocalizationKD(region="main", weight=1, temperature=10),
    "ld vlr": LocalizationKD(region="vlr", weight=1, temperature=10),
    "ld joint": LocalizationKD(region="main", weight=1, temperature=10, joint_edges=True),
    "ld teacher score": LocalizationKD(region="teacher_score", weight=1, temperature=1, branch="cross"),
    "kd": ClassificationKD(region="main", weight=1, temperature=2),
    "bkd": BinaryClassificationKD(region="full", weight=1),
    "bkd cross": BinaryClassificationKD(region="full", weight=1, branch="cross"),
    "iou": IoULocalizationKD(region="score_gap", weight=1),
    "im gi": FeatureKD(region="gi", weight=1),
    "im main": FeatureKD(region="main", weight=1),
    "im defeat": FeatureKD(region="foreground_background", weight=3),
    "pkd": PearsonKD(weight=1),
}


@pytest.mark.parametrize("name", ALL_TERMS)
def test_default_recipe_does_not_see_how_often_an_image_stands_in_the_batch(name: str) -> None:
    term = ALL_TERMS[name]
    once = value(term, random_batch(images=(0, 1, 2)))
    assert once > 1e-4
    repeated = value(term, random_batch(images=(2, 0, 1, 1, 2, 0)))
    torch.testing.assert_close(repeated, once, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ALL_TERMS)
def test_weight_scales_and_student_equal_to_its_teacher_has_no_loss(name: str) -> None:
    term = ALL_TERMS[name]
    batch = random_batch()
    loss = value(term, batch)
    term.weight *= 2
    torch.testing.assert_close(value(term, batch), 2 * loss)
    term.weight /= 2
    same = DistillBatch(
        batch.teacher, batch.teacher, batch.assigned, batch.gt_boxes, cross=batch.teacher,
        student_features=batch.teacher_features, teacher_features=batch.teacher_features,
    )  # fmt: skip
    assert value(term, same).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("recipe", ["default", "published"])
@pytest.mark.parametrize("name", ALL_TERMS)
def test_all_locations_at_weight_zero_are_the_same_as_picked_ones(
    name: str, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On the CPU a term picks the region's locations; elsewhere it takes all with their weight, without a wait.
    def with_gradients() -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        batch = random_batch(requires_grad=True)
        loss = value(ALL_TERMS[name], batch, recipe=recipe)
        loss.backward()
        leaves = [batch.student.class_logits, batch.student.edge_logits, batch.student.boxes, *batch.student_features]
        return loss.detach(), [leaf.grad for leaf in leaves if leaf is not None]

    picked = with_gradients()
    for module in ("ld_deploy.distill.terms", "ld_deploy.distill.feature_terms"):
        monkeypatch.setattr(f"{module}.members", lambda _: ...)
    everything = with_gradients()
    torch.testing.assert_close(everything[0], picked[0])
    for first, second in zip(everything[1], picked[1], strict=True):
        if first is not None and second is not None:
            torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-7)
        else:
            assert first is second or (first if first is not None else second).count_nonzero() == 0  # type: ignore[union-attr]


def test_members_are_picked_on_the_cpu_alone() -> None:
    assert terms.members(torch.tensor([[0.0, 2.0]])).tolist() == [[False, True]]  # type: ignore[union-attr]
    assert terms.members(torch.zeros(1, 2, device="meta")) is ...


def by_hand_batch(student: list[float], teacher: list[float], boxes: Any = None) -> DistillBatch:
    """One location, one positive; logits of the classes."""
    outputs = [
        HeadOutputs(torch.tensor([[each]]), None, decode=lambda box=box: torch.tensor([[box]]))
        for each, box in zip((student, teacher), boxes or (None, None), strict=True)
    ]
    assigned = Assignment(
        torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long), [1]
    )
    return DistillBatch(outputs[0], outputs[1], assigned, [torch.zeros(0, 4)])


def test_binary_classification_by_hand() -> None:
    # Class 0: student 0.5, teacher 0.8: |0.3| * ln 2. Class 1: student 0.75, teacher 0.5:
    # 0.25 * -(ln 0.75 + ln 0.25) / 2. One positive.
    batch = by_hand_batch([0.0, math.log(3)], [math.log(4), 0.0])
    expected = 0.3 * math.log(2) - 0.25 * (math.log(0.75) + math.log(0.25)) / 2
    assert value(BinaryClassificationKD(region="full", weight=2), batch).item() == pytest.approx(2 * expected, rel=1e-5)


def test_binary_classification_of_joint_scores_is_the_same_formula() -> None:
    batch = by_hand_batch([0.0, math.log(3)], [math.log(4), 0.0])
    joint = DistillBatch(
        *(
            HeadOutputs(each.class_logits * 7, None, joint_scores=each.scores)
            for each in (batch.student, batch.teacher)
        ),
        batch.assigned,
        batch.gt_boxes,
    )
    term = BinaryClassificationKD(region="full", weight=1)
    torch.testing.assert_close(value(term, joint), value(term, batch))


def test_iou_localization_by_hand() -> None:
    # Two squares of side 2, one px apart: IoU 1/3, the enclosing box is full: GIoU = 1/3. The scores differ by 0.3.
    batch = by_hand_batch([0.0], [math.log(4)], ([0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0]))
    loss = value(IoULocalizationKD(region="score_gap", weight=1), batch)
    assert loss.item() == pytest.approx(0.3 * 2 / 3, rel=1e-5)


def test_joint_edges_are_one_distribution() -> None:
    batch = random_batch()
    term = LocalizationKD(region="main", weight=1, temperature=3, joint_edges=True)
    student, teacher = (each.edge_logits.flatten(2)[batch.positive] for each in (batch.student, batch.teacher))  # type: ignore[union-attr]
    divergence = terms.distribution_divergence(student, teacher, temperature=3)
    weights = batch.student.best_scores[batch.positive]
    torch.testing.assert_close(value(term, batch), (divergence * weights).sum() / 4 / batch.weight_sum)


def test_teacher_score_is_over_its_own_weights_in_both_recipes() -> None:
    batch = random_batch()
    weights = batch.teacher.best_scores
    assert batch.student.edge_logits is not None
    assert batch.teacher.edge_logits is not None
    divergence = terms.distribution_divergence(batch.student.edge_logits, batch.teacher.edge_logits, temperature=2)
    expected = (divergence.sum(dim=-1) * weights).sum() / 4 / weights.sum()
    term = LocalizationKD(region="teacher_score", weight=1, temperature=2)
    for recipe in ("default", "published"):
        torch.testing.assert_close(value(term, batch, recipe=recipe), expected)


def test_feature_imitation_by_hand() -> None:
    batch = random_batch(images=(1,))
    inside = REGIONS["inside_gt"](batch, recipe="default")[0]
    assert 0 < inside.sum() < len(inside)
    rows = [
        torch.cat([level.flatten(2)[0].T for level in features])
        for features in (batch.student_features, batch.teacher_features)
    ]
    expected = 2 * (rows[0] - rows[1]).square().mean(dim=1)[inside > 0].mean()
    torch.testing.assert_close(value(FeatureKD(region="inside_gt", weight=2), batch), expected)


def test_defeat_is_the_mean_inside_and_twice_the_mean_outside() -> None:
    batch = random_batch(images=(1,))
    inside = REGIONS["inside_gt"](batch, recipe="default")[0] > 0
    squares = torch.cat(
        [
            (first - second).square().mean(dim=1).flatten(1)[0]
            for first, second in zip(batch.student_features, batch.teacher_features, strict=True)
        ]
    )
    expected = squares[inside].mean() + 2 * squares[~inside].mean()
    torch.testing.assert_close(value(FeatureKD(region="foreground_background", weight=3), batch), expected)


def test_pearson_is_one_minus_the_correlation_of_each_channel() -> None:
    batch = random_batch(images=(1, 2))
    expected = 0.0
    for student, teacher in zip(batch.student_features, batch.teacher_features, strict=True):
        pairs = [
            np.corrcoef(student[image, channel].flatten(), teacher[image, channel].flatten())[0, 1]
            for image in range(2)
            for channel in range(WIDTH)
        ]
        expected += 1 - float(np.mean(pairs))
    assert value(PearsonKD(weight=1), batch).item() == pytest.approx(expected, rel=1e-4)
    batch_wide = value(PearsonKD(weight=1), batch, recipe="published").item()
    assert batch_wide != pytest.approx(expected, rel=1e-3)


def test_pearson_of_a_map_of_one_location_has_finite_gradients() -> None:
    student = torch.randn(2, 3, 1, 1, requires_grad=True)
    batch = random_batch(images=(0, 1))
    single = DistillBatch(
        batch.student, batch.teacher, batch.assigned, batch.gt_boxes,
        student_features=[student], teacher_features=[torch.randn(2, 3, 1, 1)],
    )  # fmt: skip
    value(PearsonKD(weight=1), single).backward()
    assert student.grad is not None
    assert student.grad.abs().max() == 0


def test_adapters_stand_where_the_widths_differ_and_learn() -> None:
    for term in (FeatureKD(region="full", weight=1), PearsonKD(weight=1)):
        term.connect(WIDTH, WIDTH)
        assert not list(term.parameters())
        term.connect(WIDTH, 9)
        batch = random_batch()
        wide = DistillBatch(
            batch.student, batch.teacher, batch.assigned, batch.gt_boxes, student_features=batch.student_features,
            teacher_features=[torch.randn(level.shape[0], 9, *level.shape[2:]) for level in batch.teacher_features],
        )  # fmt: skip
        value(term, wide).backward()
        assert all(parameter.grad is not None for parameter in term.parameters())
        assert len(list(term.parameters())) == 2


def test_alignment_gives_the_targets_mean_and_deviation() -> None:
    maps, target = torch.randn(2, 3, 8, 8) * 4 - 2, torch.randn(2, 3, 8, 8) * 0.5 + 7
    aligned = align(maps, target, axes=(2, 3))
    torch.testing.assert_close(aligned.mean(dim=(2, 3)), target.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(aligned.std(dim=(2, 3)), target.std(dim=(2, 3)), rtol=1e-4, atol=1e-4)
    assert torch.isfinite(align(maps[..., :1, :1], target[..., :1, :1], axes=(2, 3))).all()
