"""RetinaNet with distributions: nine anchors a location, and what the published head computes on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.distill.batch import Assignment, DistillBatch, HeadOutputs
from ld_deploy.distill.heads import read_maps
from ld_deploy.distill.regions import REGIONS
from ld_deploy.distill.terms import ClassificationKD, LocalizationKD
from ld_deploy.models import RetinaDistributionHead

ORACLES = Path(__file__).parents[1] / "oracles"


@pytest.fixture(scope="module")
def arrays() -> Any:
    return np.load(ORACLES / "retina_ld.npz")


def make_head(*, classes: int = 5, strides: tuple[int, ...] = (8, 16, 32, 64, 128)) -> RetinaDistributionHead:
    assigner = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0}
    return RetinaDistributionHead(
        num_classes=classes,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        anchor_generator={
            "type": "AnchorGenerator",
            "octave_base_scale": 4,
            "scales_per_octave": 3,
            "ratios": [0.5, 1.0, 2.0],
            "strides": list(strides),
        },
        loss_cls={"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0},
        loss_bbox={"type": "GIoULoss", "loss_weight": 2.0},
        train_cfg={"assigner": {**assigner, "ignore_iof_thr": -1}, "allowed_border": -1, "pos_weight": -1},
    )


@pytest.mark.parametrize(("joint", "key"), [(True, "joint68"), (False, "per_side17")])
def test_one_softmax_over_all_sides_or_one_a_side(arrays: Any, joint: bool, key: str) -> None:
    student, teacher = (
        HeadOutputs(torch.zeros(1, 30, 1), torch.tensor(arrays[name]).view(1, 30, 4, 17))
        for name in ("pred", "teacher")
    )
    assigned = Assignment(
        torch.zeros(1, 30, 4), torch.ones(1, 30, dtype=torch.bool), torch.zeros(1, 30, dtype=torch.long), [30]
    )
    batch = DistillBatch(student, teacher, assigned, [torch.zeros(0, 4)])
    term = LocalizationKD(region="main", weight=5, temperature=10, joint_edges=joint)
    loss = term(batch, torch.tensor(arrays["weight"])[None], recipe="published")
    np.testing.assert_allclose(loss.item(), arrays[key], rtol=1e-5)


@pytest.fixture(scope="module")
def stored_batch(arrays: Any) -> DistillBatch:
    """One level of 6 x 7 locations with nine anchors each, read as the head's maps are."""
    head = make_head(strides=(8,))
    student, teacher = (
        read_maps(head, [[torch.tensor(arrays[f"{role}cls"])], [torch.tensor(arrays[f"{role}reg"])]])
        for role in ("", "t")
    )
    labels = torch.tensor(arrays["labels"])
    assigned = Assignment(torch.zeros(1, 378, 4), torch.ones(1, 378, dtype=torch.bool), labels, [378])
    return DistillBatch(student, teacher, assigned, [torch.zeros(0, 4)])


# The published weights are 5, 0.03 * 5 over the VLR, and 10 at temperature 8. Outside of the main region the recipe
# `published` divides by 4 more, as the published GFL head does and the RetinaNet head does not.
@pytest.mark.parametrize(
    ("key", "term"),
    [
        ("loss_ld", LocalizationKD(region="main", weight=5, temperature=10, joint_edges=True)),
        ("loss_ld_vlr", LocalizationKD(region="vlr", weight=0.03 * 5 * 4, temperature=10, joint_edges=True)),
        ("loss_cls_kd", ClassificationKD(region="main", weight=10, temperature=8)),
    ],
)
def test_published_losses(arrays: Any, stored_batch: DistillBatch, key: str, term: Any) -> None:
    assert 0 < int(stored_batch.positive.sum()) < 378
    weights = {
        "main": REGIONS["main"](stored_batch, recipe="published"),
        "vlr": torch.tensor(arrays["vlr_in"]) * ~stored_batch.positive,
    }
    np.testing.assert_array_equal(weights["vlr"], arrays["vlr_after"])
    loss = term(stored_batch, weights[term.region], recipe="published")
    np.testing.assert_allclose(loss.item(), arrays[key], rtol=1e-5)


def test_published_region_on_the_head_own_anchors(arrays: Any) -> None:
    head = make_head()
    shapes = [(40, 52), (20, 26), (10, 13), (5, 7), (3, 4)]
    gts = torch.tensor(arrays["region.gts"])
    meta = {"img_shape": (320, 416), "pad_shape": (320, 416)}
    truth = InstanceData(bboxes=gts, labels=torch.zeros(len(gts), dtype=torch.long))
    maps = [[torch.zeros(1, channels * 9, *shape) for shape in shapes] for channels in (5, 68)]
    head.loss_by_feat(*maps, [truth], [meta])
    assigned = head.assigned
    assert assigned is not None
    assert list(assigned.level_sizes) == arrays["region.num"].tolist()
    outputs = HeadOutputs(torch.zeros(1, assigned.labels.shape[1], 5), None)
    batch = DistillBatch(outputs, outputs, assigned, [gts])

    published = REGIONS["vlr"](batch, recipe="published")[0]
    expected = arrays["region.vlr"]
    assert int((expected > 0).sum()) == 5280
    np.testing.assert_array_equal(published > 0, expected > 0)
    np.testing.assert_allclose(published, expected, atol=1e-6)

    positive = batch.positive[0]
    assert 0 < int((positive & (published > 0)).sum()) < int(positive.sum()) < 500
    without = REGIONS["vlr"](batch, recipe="published", exclude_positives=True)[0]
    torch.testing.assert_close(without, published * ~positive)
    # The true DIoU is another region: an anchor inside of a large object overlaps it little.
    assert not torch.equal(REGIONS["vlr"](batch, recipe="default")[0] > 0, published > 0)


def test_box_of_one_anchor_by_hand() -> None:
    head = make_head(strides=(8,))
    edges = torch.zeros(1, 9, 4, 17, 3, 4)
    for side, distance in enumerate((2, 1, 3, 4)):
        edges[0, 5, side, distance, 1, 2] = 100
    boxes = read_maps(head, [[torch.zeros(1, 45, 3, 4)], [edges.flatten(1, 3)]]).boxes
    place = (1 * 4 + 2) * 9 + 5  # row 1, column 2: the centre is (16, 8)
    torch.testing.assert_close(boxes[0, place], torch.tensor([0.0, 0.0, 40.0, 40.0]))
    # The other anchors there have uniform distributions: 8 strides to each side.
    torch.testing.assert_close(boxes[0, place - 1], torch.tensor([-48.0, -56.0, 80.0, 72.0]))
    assert int((boxes[0] == boxes[0, place]).all(dim=1).sum()) == 1
