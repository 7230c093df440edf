"""ATSS, FCOS and RetinaNet with distributions as students and teachers: of their kind, of GFL, and across heads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

from ld_deploy.distill.regions import REGIONS
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmdet.structures import DetDataSample

KINDS = ("atss", "fcos", "retina")
Step = tuple[torch.Tensor, list["DetDataSample"]]

DISTILL = [
    {"type": "LocalizationKD", "region": "main", "weight": 1, "temperature": 10},
    {"type": "LocalizationKD", "region": "vlr", "weight": 1, "temperature": 10},
    {"type": "ClassificationKD", "region": "main", "weight": 1, "temperature": 2},
    {"type": "FeatureKD", "region": "inside_gt", "weight": 1},
]
NAMES = ["loss_ld_main", "loss_ld_vlr", "loss_kd_main", "loss_im_inside_gt"]


def check_distillation(model: Any, step: Step, *, names: list[str]) -> None:
    """Each term is there, and reaches the student and not the teacher."""
    losses = model.train().loss(*step)
    for name in names:
        assert losses[name] > 0, name
        assert math.isfinite(losses[name].item()), name
        gradients = torch.autograd.grad(losses[name], list(model.parameters()), retain_graph=True, allow_unused=True)
        present = [each for each in gradients if each is not None]
        assert sum(float(each.abs().sum()) for each in present) > 0, name
        assert all(bool(torch.isfinite(each).all()) for each in present), name
    assert model.bbox_head.assigned is None
    assert all(parameter.grad is None for parameter in model.teacher.module.parameters())


@pytest.mark.parametrize("recipe", ["default", "published"])
@pytest.mark.parametrize("kind", KINDS)
def test_is_distilled_by_its_own_kind(
    build_detector: Callable[..., Any], training_step: Step, kind: str, recipe: str
) -> None:
    distill = [dict(term) for term in DISTILL]
    if kind == "retina":  # as published
        distill[0]["joint_edges"] = True
        distill[1].update(joint_edges=True, region={"type": "vlr", "exclude_positives": True})
    check_distillation(build_detector(kind, teacher=kind, distill=distill, recipe=recipe), training_step, names=NAMES)


@pytest.mark.parametrize(
    ("student", "teacher"), [("atss", "gfl"), ("gfl", "atss"), ("atss", "gflv2"), ("gflv2", "atss")]
)
def test_atss_and_gfl_distil_each_other(
    build_detector: Callable[..., Any], training_step: Step, student: str, teacher: str
) -> None:
    check_distillation(build_detector(student, teacher=teacher, distill=DISTILL), training_step, names=NAMES)


@pytest.mark.parametrize(("student", "teacher"), [("fcos", "gfl"), ("gfl", "fcos")])
def test_fcos_and_gfl_agree_on_boxes_and_not_on_distances(
    build_detector: Callable[..., Any], training_step: Step, student: str, teacher: str
) -> None:
    """Half a stride lies between their centres: distances to the sides differ where the boxes are the same."""
    boxes = {"type": "IoULocalizationKD", "region": "main", "weight": 1}
    model = build_detector(student, teacher=teacher, distill=[*DISTILL[2:], boxes])
    check_distillation(model, training_step, names=["loss_kd_main", "loss_im_inside_gt", "loss_iou_main"])
    with pytest.raises(
        ConfigError, match=r"does not fit the student: its .*centre.* is 0\.[05], the student's 0\.[05]"
    ):
        build_detector(student, teacher=teacher, distill=DISTILL)


def test_the_vlr_of_points_is_what_lies_inside_and_is_not_assigned(
    build_detector: Callable[..., Any], training_step: Step
) -> None:
    model = build_detector("fcos", teacher="fcos", distill=DISTILL).train()
    _, batch = model.step(*training_step)
    weights = REGIONS["vlr"](batch, recipe="published")
    points = (batch.assigned.priors[..., :2] + batch.assigned.priors[..., 2:]) / 2
    expected = torch.zeros_like(weights)
    for image, boxes in enumerate(batch.gt_boxes):
        for place, (x, y) in enumerate(points[image].tolist()):
            inside = any(x1 < x < x2 and y1 < y < y2 for x1, y1, x2, y2 in boxes.tolist())
            if inside and batch.assigned.labels[image, place] == 2:
                expected[image, place] = batch.student.class_logits[image, place].max().sigmoid()
    assert 10 < int((expected > 0).sum()) < expected.numel() / 2
    torch.testing.assert_close(weights, expected)


def test_a_plain_teacher_of_mmdet_teaches_boxes(build_detector: Callable[..., Any], training_step: Step) -> None:
    boxes = {"type": "IoULocalizationKD", "region": "main", "weight": 1}
    for student in ("atss", "gfl"):
        model = build_detector(student, teacher="plain_atss", distill=[boxes, DISTILL[2]])
        check_distillation(model, training_step, names=["loss_iou_main", "loss_kd_main"])


@pytest.mark.parametrize("teacher", ["plain_retina", "retina"])
def test_a_retina_teacher_teaches_gfl_across_heads(
    build_detector: Callable[..., Any], training_step: Step, teacher: str
) -> None:
    distill = [
        {"type": "BinaryClassificationKD", "region": "full", "weight": 1, "branch": "cross"},
        {"type": "IoULocalizationKD", "region": "teacher_score", "weight": 1, "branch": "cross"},
    ]
    model = build_detector("gfl", teacher=teacher, distill=distill)
    check_distillation(model, training_step, names=["loss_cross_bkd_full", "loss_cross_iou_teacher_score"])
    _, batch = model.step(*training_step)
    assert batch.cross.boxes.shape == batch.teacher.boxes.shape == (2, 129 * 9, 4)


@pytest.mark.parametrize(
    ("student", "teacher", "changes", "message"),
    [
        ("atss", "atss", {"teacher_head": {"num_classes": 3}}, "number of classes is 3, the student's 2"),
        (
            "fcos",
            "fcos",
            {"teacher_head": {"strides": [4, 8, 16, 32, 64]}},
            r"strides is \[\(4, 4\).*the student's \[\(8,",
        ),
        ("gfl", "retina", {}, "predictions per location is 9, the student's 1"),
        ("retina", "gfl", {}, "predictions per location is 1, the student's 9"),
        ("atss", "atss", {"teacher_head": {"reg_max": 8}}, "reg_max is 8, the student's 16"),
        ("atss", "plain_atss", {}, "reg_max is None, the student's 16|has none: use IoULocalizationKD"),
        ("plain_atss", "atss", {}, "a ATSSHead cannot be distilled: use .*ATSSDistributionHead"),
    ],
)
def test_teachers_that_do_not_fit_are_named(
    build_detector: Callable[..., Any], student: str, teacher: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_detector(student, teacher=teacher, distill=DISTILL[:1], **changes)


@pytest.mark.parametrize("empty", [(1,), (0, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_images_without_ground_truth(
    build_detector: Callable[..., Any], training_step: Step, kind: str, empty: tuple[int, ...]
) -> None:
    model = build_detector(kind, teacher=kind, distill=DISTILL).train()
    images, samples = training_step
    for index in empty:
        samples[index].gt_instances = samples[index].gt_instances[:0]
    losses = model.loss(images, samples)
    total = sum(sum(value) if isinstance(value, list) else value for name, value in losses.items() if "loss" in name)
    total.backward()
    assert math.isfinite(total.item())
    assert all(bool(torch.isfinite(each.grad).all()) for each in model.parameters() if each.grad is not None)
    if len(empty) == 2:
        assert losses["loss_ld_main"] == losses["loss_ld_vlr"] == losses["loss_kd_main"] == 0


@pytest.mark.parametrize(
    ("teacher", "term", "message"),
    [
        # Half a stride beside the student's locations: its positives are none of the teacher's.
        ("fcos", {"type": "LocalizationKD", "region": "main", "temperature": 1}, "at other locations than the student"),
        ("retina", {"type": "IoULocalizationKD", "region": "vlr"}, "at other locations than the student"),
        ("retina", {"type": "ClassificationKD", "region": "full"}, "no mean by level"),
    ],
)
def test_cross_terms_that_need_the_students_locations_are_refused(
    build_detector: Callable[..., Any], teacher: str, term: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_detector("gfl", teacher=teacher, recipe="published", distill=[{**term, "weight": 1, "branch": "cross"}])


def test_cross_branch_pairs_levels(build_detector: Callable[..., Any]) -> None:
    generator = {"type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1}
    fewer = {"anchor_generator": {**generator, "strides": [8, 16, 32]}}
    term = {"type": "BinaryClassificationKD", "region": "full", "weight": 1, "branch": "cross"}
    with pytest.raises(ConfigError, match="the student has 5, the teacher 3"):
        build_detector("gfl", teacher="gfl", teacher_head=fewer, distill=[term])
