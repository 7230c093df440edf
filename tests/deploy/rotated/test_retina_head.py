"""The published Rotated-LD head: assignment by upright hulls, maps of 9 x 45, losses, distillation, prediction."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.config import load_config
from ld_deploy.distill.batch import Assignment, DistillBatch
from ld_deploy.distill.distillation import Distillation
from ld_deploy.distill.heads import read_maps
from ld_deploy.rotated.boxes import horizontal_hulls
from ld_deploy.rotated.losses import GaussianBoxLoss
from ld_deploy.rotated.overlaps import RotatedOverlaps, rotated_iou
from ld_deploy.rotated.regions import main_and_vlr_region
from ld_deploy.rotated.retina_head import HullOverlaps
from ld_runtime.errors import ConfigError

ROOT = Path(__file__).parents[3]
CONFIGS = ROOT / "configs" / "rotated"
HW = (64, 96)
SIZES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
META = {"img_shape": HW, "pad_shape": HW, "ori_shape": (128, 144), "scale_factor": (96 / 144, 0.5)}
BOX = (44.0, 30.0, 40.0, 12.0, 0.6)
CLASSES = 15


@pytest.fixture(scope="module")
def oracle() -> Any:
    with np.load(ROOT / "tests" / "oracles" / "rotated_ld.npz") as arrays:
        return {name: torch.as_tensor(arrays[name]) for name in arrays.files}


def build_head(name: str = "retina_r18_dota_gwd_1x", **options: Any) -> Any:
    model = load_config(CONFIGS / f"{name}.py").model
    return MODELS.build({**model.bbox_head, "train_cfg": model.train_cfg, "test_cfg": model.test_cfg, **options})


def truth(*boxes: tuple[float, ...], label: int = 3) -> InstanceData:
    return InstanceData(
        bboxes=torch.tensor(boxes).view(-1, 5), labels=torch.full((len(boxes),), label, dtype=torch.long)
    )


def random_maps(images: int, *, seed: int = 0, scale: float = 1.0) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    classes, boxes = (
        [scale * torch.randn(images, 9 * channels, *size, generator=generator) for size in SIZES]
        for channels in (CLASSES, 45)
    )
    return classes, boxes


def as_map(rows: torch.Tensor) -> torch.Tensor:
    """Rows (n, channels) as a map of one column, which is read in the same order."""
    return rows.T[None, :, :, None]


def test_overlap_of_hulls_by_hand() -> None:
    # A square of side 10 standing on its corner has a hull of side 10 sqrt 2; 4 x 20 turned by a quarter, 20 x 4.
    boxes = torch.tensor([[0.0, 0, 10, 10, math.pi / 4], [0.0, 0, 4, 20, math.pi / 2]])
    priors = torch.tensor([[0.0, 0, 10, 10, 0], [10.0, 0, 20, 4, 0]])
    found = HullOverlaps()(boxes, priors)
    inner = 5 * math.sqrt(2)  # of the hull to the right of its centre
    expected = [[0.5, 4 * inner / (200 + 80 - 4 * inner)], [40 / (80 + 100 - 40), 40 / (160 - 40)]]
    torch.testing.assert_close(found, torch.tensor(expected))


# The side of a prior, 32, and of a larger one at the same place, which takes the boxes that are nearer to it.
SMALL, LARGE = 32.0, 50.0


@pytest.mark.parametrize(
    ("iou", "kind"),
    [(0.399, "background"), (0.401, "ignored"), (0.499, "ignored"), (0.501, "positive")],
)
def test_assignment_at_the_thresholds(iou: float, kind: str) -> None:
    """A square on its corner, whose hull has that IoU with the smaller prior and more with the larger one."""
    side = SMALL / math.sqrt(iou)
    box = (64.0, 64.0, side / math.sqrt(2), side / math.sqrt(2), math.pi / 4)
    assert side < LARGE + 1
    labels, weights, targets, counted, count = targets_of(box)
    place = 2 * 4  # row 1, column 1 of 2 x 3 places, two priors each
    assert labels[place + 1] == 3  # the larger one
    assert (labels[place] == 3, weights[place] == 1) == {
        "background": (False, True),
        "ignored": (False, False),
        "positive": (True, True),
    }[kind]
    positive = labels == 3
    assert int(positive.sum()) == 1 + (kind == "positive") == count
    assert weights.sum() == 12 - (kind == "ignored")
    assert bool((counted[positive] == 1).all())
    assert not counted[~positive].any()
    torch.testing.assert_close(targets[positive], torch.tensor([box]).expand(int(positive.sum()), -1))


def test_an_object_that_no_prior_fits_gets_the_best_one() -> None:
    side = SMALL * math.sqrt(0.1)
    labels, weights, *_ = targets_of((64.0, 64.0, side, side, 0.0))
    assert torch.nonzero(labels == 3).tolist() == [[8]]
    assert bool((weights == 1).all())


def test_without_objects_all_is_background() -> None:
    labels, weights, targets, counted, count = targets_of()
    assert bool((labels == CLASSES).all())
    assert bool((weights == 1).all())
    assert not targets.any()
    assert not counted.any()
    assert count == 1


def targets_of(*boxes: tuple[float, ...]) -> tuple[Any, ...]:
    """Of one image of 2 x 3 places, 64 px apart, with two priors each."""
    generator = {"type": "RotatedAnchorGenerator", "scales": [SMALL / 64, LARGE / 64], "ratios": [1.0], "strides": [64]}
    head = build_head(anchor_generator=generator)
    meta = {"img_shape": (128, 192), "pad_shape": (128, 192)}
    priors, flags = head.get_anchors([(2, 3)], [meta], device="cpu")
    torch.testing.assert_close(priors[0][0][8:10], torch.tensor([[64.0, 64, x, x, 0] for x in (SMALL, LARGE)]))
    *parts, count = head.get_targets(priors, flags, [truth(*boxes)], [meta])
    assert torch.equal(head.assigned.labels, parts[0][0])
    assert torch.equal(head.assigned.priors, priors[0][0][None])
    return (*(levels[0][0] for levels in parts), count)


def test_published_boxes_and_box_loss(oracle: Any) -> None:
    head = build_head()
    logits, anchors, boxes = oracle["dist.logits"], oracle["dist.anchors"], oracle["dist.boxes"]
    decoded = head.decode_rows(logits[None], anchors, torch.zeros(50, 1))
    np.testing.assert_allclose(decoded[0], boxes, rtol=1e-5, atol=1e-4)
    target, weight = oracle["gd.target"], oracle["gd.weight"]
    _, loss = head.loss_by_feat_single(
        as_map(oracle["loss.cls_s"]),
        as_map(logits),
        anchors[None],
        torch.full((1, 50), CLASSES),
        torch.ones(1, 50),
        target[None],
        weight[None],
        avg_factor=17.0,
    )
    expected = GaussianBoxLoss(distance="gwd", tau=0, loss_weight=5)(boxes, target, weight, avg_factor=17.0)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_published_distillation_losses(oracle: Any) -> None:
    head = build_head()
    student, teacher = (
        read_maps(head, [[as_map(oracle[f"loss.cls_{which}"])], [as_map(oracle[name])]])
        for which, name in (("s", "dist.logits"), ("t", "loss.teacher"))
    )
    priors = torch.zeros(1, 50, 5)
    assigned = Assignment(priors, torch.ones(1, 50, dtype=torch.bool), torch.zeros(1, 50, dtype=torch.long), [50])
    batch = DistillBatch(student, teacher, assigned, [torch.zeros(0, 5)])
    terms = [
        MODELS.build(term) for term in load_config(CONFIGS / "ld_retina_r18_r34_dota_gwd_1x_published.py").model.distill
    ]
    for term, name in zip(terms, ("loss.ld", "loss.kd"), strict=True):
        loss = term(batch, oracle["loss.w"][None], recipe="published")
        np.testing.assert_allclose(loss, oracle[name], rtol=1e-5)


def test_published_region_on_the_heads_own_anchors(oracle: Any) -> None:
    head, meta = build_head(), {"img_shape": (256, 256), "pad_shape": (256, 256)}
    maps = [[torch.zeros(1, 9 * channels, 256 // s, 256 // s) for s in (8, 16, 32, 64, 128)] for channels in (15, 45)]
    gts = oracle["region.gts"]
    # The published region depends on how a box is written, the published head writes `oc`: here it gets another one.
    turned = torch.stack([gts[:, 0], gts[:, 1], gts[:, 3], gts[:, 2], gts[:, 4] - math.pi / 2], dim=1)
    for written in (gts, turned):
        head.loss_by_feat(*maps, [truth(*map(tuple, written.tolist()))], [meta])
        outputs = read_maps(head, maps)
        assert list(head.assigned.level_sizes) == oracle["region.num"].tolist()
        batch = DistillBatch(outputs, outputs, head.assigned, [written])
        weights = main_and_vlr_region(batch, recipe="published")[0]
        np.testing.assert_allclose(weights, oracle["region.ld"], rtol=1e-4, atol=1e-5)


def test_a_map_of_nine_anchors_by_hand() -> None:
    head = build_head()
    classes, boxes = random_maps(2)
    outputs = read_maps(head, (classes, boxes))
    assert outputs.edge_logits is not None
    assert outputs.edge_logits.shape == (2, 9 * 129, 5, 9)
    assert outputs.boxes.shape == (2, 9 * 129, 5)
    # Image 1, level 1 at row 2, column 3, anchor 4: after the 96 places of level 0.
    place = 9 * (96 + 2 * 6 + 3) + 4
    torch.testing.assert_close(outputs.edge_logits[1, place].flatten(), boxes[1][1, 4 * 45 : 5 * 45, 2, 3])
    torch.testing.assert_close(outputs.class_logits[1, place], classes[1][1, 4 * 15 : 5 * 15, 2, 3])
    # Ratio 1/2 (h / w), the second of three scales: 64 px grown by 2^(1/3), an area of that squared.
    side = 64 * 2 ** (1 / 3)
    prior = torch.tensor([3 * 16.0, 2 * 16.0, side * math.sqrt(2), side / math.sqrt(2), 0])
    uniform = head.decode_rows(
        torch.zeros(1, 1161, 45), torch.cat(head.prior_generator.grid_priors(SIZES, device="cpu")), None
    )
    torch.testing.assert_close(uniform[0, place], prior - torch.tensor([0, 0, 0, 0, 1.5]))  # the middle of -5 and 2


@pytest.mark.parametrize("name", ["retina_r18_dota_gwd_1x", "retina_r18_dota_kld_1x"])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("boxes", [[(BOX,), ()], [(), ()]], ids=["one without", "none"])
def test_gradients_are_finite(name: str, scale: float, boxes: Any) -> None:
    head = build_head(name)
    maps = [[level.requires_grad_() for level in kind] for kind in random_maps(2, scale=scale)]
    losses = head.loss_by_feat(*maps, [truth(*each) for each in boxes], [META] * 2)
    total = sum(level.mean() for kind in losses.values() for level in kind)
    total.backward()
    gradients = [level.grad for kind in maps for level in kind]
    assert all(each is not None and bool(each.isfinite().all()) for each in gradients)
    positives = int((head.assigned.labels == 3).sum())
    assert (positives > 0) == bool(boxes[0])
    assert (float(sum(level.detach().abs().sum() for level in losses["loss_bbox"])) > 0) == (positives > 0)
    if scale == 1:
        assert float(torch.cat([each.flatten() for each in gradients if each is not None]).abs().sum()) > 0


def test_a_batch_weighs_as_its_images_one_by_one() -> None:
    """Losses times what they are divided by: the positives, of an image without any one."""
    head = build_head()
    images = [truth(BOX, (20.0, 40.0, 30.0, 14.0, -1.0)), truth(), truth((70.0, 20.0, 36.0, 20.0, 1.2))]
    maps, taught = random_maps(3), random_maps(3, seed=1)
    kinds = ("RotatedLocalizationKD", "RotatedClassificationKD")
    terms = Distillation([{"type": kind, "region": "main_and_vlr", "weight": 10, "temperature": 5} for kind in kinds])

    def losses(of: slice) -> tuple[dict[str, float], int]:
        own, teacher = ([[level[of] for level in kind] for kind in each] for each in (maps, taught))
        found = head.loss_by_feat(*own, images[of], [META] * len(images[of]))
        values = {name: float(sum(levels)) for name, levels in found.items()}
        gts = [each.bboxes for each in images[of]]
        batch = DistillBatch(read_maps(head, own), read_maps(head, teacher), head.assigned, gts)
        values |= {name: float(value) for name, value in terms(batch).items() if name.startswith("loss")}
        return values, int(batch.positive.sum(dim=1).clamp(min=1).sum())

    together, count = losses(slice(0, 3))
    assert set(together) == {"loss_cls", "loss_bbox", "loss_ld_main_and_vlr", "loss_kd_main_and_vlr"}
    single = [losses(slice(i, i + 1)) for i in range(3)]
    counts = [each for _, each in single]
    assert counts[1] == 1
    assert sum(counts) == count > 4
    for name, value in together.items():
        assert value * count == pytest.approx(sum(values[name] * n for values, n in single), rel=1e-4)
        assert value > 0


def rows_of(box: tuple[float, ...], prior: tuple[float, ...]) -> torch.Tensor:
    """Logits (45,) of distributions over two bins whose means are the deltas of a box."""
    deltas = (
        (box[0] - prior[0]) / prior[2],
        (box[1] - prior[1]) / prior[3],
        math.log(box[2] / prior[2]),
        math.log(box[3] / prior[3]),
        box[4],
    )
    rows = torch.full((5, 9), -50.0)
    for row, delta in enumerate(deltas):
        place = (delta + 2) / 0.5 if row < 4 else (delta + 5) / 0.875
        low = min(int(place), 7)
        for bin_, share in ((low, low + 1 - place), (low + 1, place - low)):
            rows[row, bin_] = math.log(max(share, 1e-20))
    return rows.flatten()


def test_prediction_by_hand() -> None:
    """A box said by three anchors: once, as the surest says it, for each class; brought to the original image."""
    head = build_head()
    classes, edges = [[torch.full_like(level, -20.0) for level in kind] for kind in random_maps(1)]
    near = (45.0, *BOX[1:])
    # Anchor 0 is a square of 32 px.
    for row, column, label, logit, box in ((4, 5, 3, 2.0, BOX), (3, 5, 3, 1.0, near), (4, 4, 7, 0.0, near)):
        prior = (8.0 * column, 8.0 * row, 32.0, 32.0)
        classes[0][0, label, row, column] = logit
        edges[0][0, :45, row, column] = rows_of(box, prior)
    found = head.predict_by_feat(classes, edges, batch_img_metas=[META], rescale=False)[0]
    assert found.labels.tolist() == [3, 7]
    torch.testing.assert_close(found.scores, torch.tensor([2.0, 0.0]).sigmoid())
    torch.testing.assert_close(found.bboxes, torch.tensor([BOX, near]), rtol=1e-4, atol=1e-3)  # nothing is voted
    original = head.predict_by_feat(classes, edges, batch_img_metas=[META], rescale=True)[0]
    torch.testing.assert_close(original.bboxes[0, :2], torch.tensor([44 * 1.5, 60.0]), rtol=1e-4, atol=1e-3)
    assert len(original) == 2
    empty = head.predict_by_feat([level * 0 - 20 for level in classes], edges, batch_img_metas=[META])[0]
    assert empty.bboxes.shape == (0, 5)


def test_the_assignment_looks_at_the_hull_and_the_distillation_at_the_box() -> None:
    head = build_head()
    box = (48.0, 32.0, 60.0, 8.0, math.pi / 4)
    head.loss_by_feat(*random_maps(1), [truth(box)], [META])
    positive = (head.assigned.labels == 3)[0]
    priors = head.assigned.priors[0, positive]
    hull = HullOverlaps()(torch.tensor([box]), priors)[0]
    assert len(hull) > 3
    assert bool((hull >= 0.5).all())
    assert rotated_iou(priors, torch.tensor([box])).max() < 0.3  # a narrow box in a wide hull
    assert isinstance(head.assigned.overlaps, RotatedOverlaps)
    torch.testing.assert_close(
        horizontal_hulls(head.assigned.overlaps.gt_boxes[0]), horizontal_hulls(torch.tensor([box]))
    )


@pytest.mark.parametrize("options", [{"reg_decoded_bbox": False}, {"train_cfg": {"allowed_border": 0}}], ids=str)
def test_what_the_head_has_no_use_for(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"leave out reg_decoded_bbox, and set train_cfg\.allowed_border=-1"):
        build_head(**options)


def test_another_nms_is_refused() -> None:
    head = build_head()
    head.test_cfg.nms = {"type": "nms", "iou_threshold": 0.5}
    with pytest.raises(ConfigError, match="the NMS of rotated boxes is 'rotated_cluster_nms'"):
        head.predict_by_feat(*random_maps(1), batch_img_metas=[META])
