"""A rotated student learns from a rotated teacher through the terms and regions of the upright ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.config import load_config
from ld_deploy.distill.distillation import Distillation
from ld_deploy.explain.edge_picture import edge_figure
from ld_deploy.explain.panels import corners_of, save_png
from ld_deploy.explain.positives import choose_positives
from ld_deploy.explain.region_picture import region_figure, region_weights
from ld_deploy.explain.stills import look
from ld_runtime.errors import ConfigError

SSDD = Path(__file__).parents[3] / "configs" / "ssdd"
BOXES = [[44.0, 30.0, 40.0, 12.0, 0.6], [70.0, 45.0, 24.0, 10.0, -1.2]]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The SSDD student with its teacher, both of random weights."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(1)
    teacher = MODELS.build(load_config(SSDD / "teacher.py").model)
    torch.save({"state_dict": teacher.state_dict()}, folder / "teacher.pth")
    config = load_config(SSDD / "ld_student.py").model
    config.teacher.checkpoint = str(folder / "teacher.pth")
    torch.manual_seed(0)
    return MODELS.build(config)


def sample(boxes: list[list[float]]) -> dict[str, Any]:
    found = DetDataSample(metainfo={"img_shape": (64, 90), "ori_shape": (64, 90), "scale_factor": (1, 1)})
    found.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 5), labels=torch.zeros(len(boxes), dtype=torch.long)
    )
    pixels = torch.randint(0, 256, (3, 64, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"inputs": pixels, "data_samples": found}


def batch_of(student: Any, *boxes: list[list[float]]) -> tuple[dict[str, Any], Any]:
    samples = [sample(each) for each in boxes]
    data = {"inputs": [each["inputs"] for each in samples], "data_samples": [each["data_samples"] for each in samples]}
    data = student.data_preprocessor(data, training=True)
    found: tuple[dict[str, Any], Any] = student.step(data["inputs"], data["data_samples"])
    return found


@pytest.mark.parametrize("boxes", [[BOXES, BOXES[:1]], [BOXES, []], [[], []]], ids=["objects", "one without", "none"])
def test_a_step_of_the_default_recipe(student: Any, boxes: list[Any]) -> None:
    student.zero_grad()
    losses, batch = batch_of(student, *boxes)
    losses |= student.distillation(batch)
    assert {"loss_cls", "loss_bbox", "loss_dfl", "loss_cross_bkd_full", "loss_cross_ld_teacher_score"} <= set(losses)
    total = torch.stack([value.sum() for name, value in losses.items() if "loss" in name]).sum()
    total.backward()
    gradients = [each.grad for each in student.bbox_head.parameters() if each.grad is not None]
    assert len(gradients) > 10
    assert all(bool(each.isfinite().all()) for each in gradients)
    assert losses["loss_cross_ld_teacher_score"] > 0
    assert all("teacher" not in name for name in student.state_dict())


REGIONS = ("main", "vlr", "main_and_vlr", "gi", "fine_grained", "inside_gt", "full", "foreground_background")


@pytest.mark.parametrize("recipe", ["default", "published"])
@pytest.mark.parametrize("region", REGIONS)
def test_every_region_takes_rotated_boxes(student: Any, region: str, recipe: Any) -> None:
    _, batch = batch_of(student, BOXES, [])
    terms = [{"type": kind, "region": region, "weight": 1} for kind in ("LocalizationKD", "ClassificationKD")]
    losses = Distillation(terms, recipe=recipe)(batch)
    assert losses[f"locations_{region}"] > 0
    assert losses[f"loss_ld_{region}"] > 0


def test_a_teacher_like_the_student_teaches_nothing(student: Any) -> None:
    _, batch = batch_of(student, BOXES)
    batch = replace(batch, teacher=batch.student)
    terms = [{"type": "LocalizationKD", "region": "full", "weight": 1, "temperature": 10}]
    assert Distillation(terms)(batch)["loss_ld_full"].detach().abs() < 1e-6


def test_boxes_are_not_compared_by_an_upright_iou(student: Any) -> None:
    _, batch = batch_of(student, BOXES)
    with pytest.raises(ConfigError, match="take LocalizationKD"):
        Distillation([{"type": "IoULocalizationKD", "region": "full", "weight": 1}])(batch)


def test_pictures_of_regions_and_distributions(student: Any, tmp_path: Path) -> None:
    seen = look(student, sample(BOXES))
    rows = region_weights(student, seen)
    assert [[len(level.weights) for level in row.levels] for row in rows] == [[96, 24, 6]] * 2
    positives = choose_positives(student, seen, count=3)
    assert positives
    for positive in positives:
        bins = np.arange(17)
        for edges in (positive.teacher, positive.student):
            places, share = positive.places(edges.box), edges.distribution()
            assert share.shape == (5, 17)
            # Both sides may be exchanged: the longer is w, whatever the model calls so.
            means = (share[:4] * bins).sum(axis=1)
            np.testing.assert_allclose(places[:2], means[:2], atol=1e-4)
            np.testing.assert_allclose(np.sort(places[2:4]), np.sort(means[2:]), atol=1e-4)
            assert 0 <= places[4] < 17
    save_png(region_figure(seen, rows, title="regions"), tmp_path / "regions.png")
    save_png(edge_figure(seen, positives, classes=("ship",), temperature=1, title="edges"), tmp_path / "edges.png")
    assert all(cv2.imread(str(tmp_path / name)).std() > 20 for name in ("regions.png", "edges.png"))


def test_corners_of_a_tilted_box() -> None:
    quarter = corners_of(np.array([10.0, 20.0, 8.0, 4.0, np.pi / 2]))
    np.testing.assert_allclose(quarter, [[12, 16], [12, 24], [8, 24], [8, 16]], atol=1e-9)
    np.testing.assert_allclose(corners_of(np.array([1.0, 2.0, 3.0, 4.0])), [[1, 2], [3, 2], [3, 4], [1, 4]])
