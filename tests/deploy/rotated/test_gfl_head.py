"""The head of rotated boxes: coder, angle on a circle, losses, prediction, and what distillation sees of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.config import load_config
from ld_deploy.distill.heads import read_maps
from ld_deploy.rotated.boxes import in_convention, quarter_turned
from ld_deploy.rotated.offset_coder import OffsetCoder, OffsetIntegral, angle_targets, double_angle
from ld_deploy.rotated.overlaps import rotated_iou
from ld_runtime.errors import ConfigError

CONFIG = Path(__file__).parents[3] / "configs" / "ssdd" / "student.py"
HW = (64, 96)
STRIDES = (8, 16, 32)
HALF_TURN = math.pi


def random_boxes(count: int, *, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.rand(count, 5, generator=generator)
    return numbers * torch.tensor([90.0, 60.0, 50.0, 30.0, HALF_TURN]) + torch.tensor(
        [0.0, 0.0, 2.0, 1.0, -HALF_TURN / 2]
    )


@pytest.mark.parametrize(
    ("circle", "angle"),
    [((1.0, 0.0), 0.0), ((0.0, 3.0), math.pi / 4), ((0.0, -3.0), -math.pi / 4), ((-2.0, 0.0), -math.pi / 2)],
)
def test_decode_by_hand(circle: tuple[float, float], angle: float) -> None:
    """The end of the half turn is its beginning; the length of the mean direction does not matter."""
    means = torch.tensor([[3.0, -1.0, 5.0, 2.0, *circle]])
    box = OffsetCoder().decode(torch.tensor([[10.0, 20.0]]), means)[0]
    torch.testing.assert_close(box, torch.tensor([13.0, 19.0, 10.0, 4.0, angle]))


def test_what_is_encoded_is_decoded() -> None:
    boxes, points = random_boxes(500), random_boxes(500, seed=1)[:, :2]
    rows = OffsetCoder().encode(points, boxes)
    means = torch.cat([rows[:, :4], (2 * rows[:, 4:]).cos(), (2 * rows[:, 4:]).sin()], dim=1)
    found = OffsetCoder().decode(points, means)
    torch.testing.assert_close(found, in_convention(boxes, convention="le90"), rtol=1e-4, atol=1e-4)
    # One box in its other writing has the same targets: w is the longer side in both.
    torch.testing.assert_close(OffsetCoder().encode(points, quarter_turned(boxes)), rows, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bins", [3, 9, 17])
def test_the_mean_of_an_angles_targets_is_the_angle(bins: int) -> None:
    angle = torch.linspace(-HALF_TURN, 2 * HALF_TURN, 1001)
    first, second, share = angle_targets(angle, bins=bins)
    assert bool(((share >= 0) & (share <= 1)).all())
    assert bool((second == (first + 1) % bins).all())
    rows = torch.full((len(angle), 5, bins), -torch.inf)
    rows[:, :4, 0] = 0
    rows[:, 4].scatter_(1, first[:, None], (1 - share).log()[:, None])
    rows[:, 4].scatter_(1, second[:, None], share.log()[:, None])
    means = OffsetIntegral(bins - 1)(rows.flatten(1))
    found = torch.atan2(means[:, 5], means[:, 4]) / 2
    apart = (found - angle).remainder(HALF_TURN)
    assert torch.minimum(apart, HALF_TURN - apart).max() < 2e-3 / bins


def test_an_angle_just_below_the_half_turn_lies_between_the_last_bin_and_the_first() -> None:
    first, second, share = angle_targets(torch.tensor([-1e-3, 0.0]), bins=9)
    assert (first.tolist(), second.tolist()) == ([8, 0], [0, 1])
    assert share[0] > 0.99
    assert share[1] == 0


def test_without_a_direction_the_angle_is_zero_and_its_gradient_finite() -> None:
    sine, cosine = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    angle = double_angle(sine, cosine)
    angle.sum().backward()
    assert angle.item() == 0
    assert sine.grad is not None
    assert bool(sine.grad.isfinite().all())


@pytest.mark.parametrize("bins", [3, 9, 17])
def test_a_uniform_distribution_has_no_direction(bins: int) -> None:
    """Of rounding 1e-7 remains, which would be an angle."""
    logits = torch.full((4, 5 * bins), 0.3, requires_grad=True)
    means = OffsetIntegral(bins - 1)(logits)
    assert not means[:, 4:].any()
    means.sum().backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
    boxes = OffsetCoder().decode(torch.zeros(4, 2), 128 * means)
    assert boxes[:, 4].tolist() == [0] * 4


def build_head(**options: Any) -> Any:
    config = load_config(CONFIG)
    head = {**config.model.bbox_head, "train_cfg": config.model.train_cfg, "test_cfg": config.model.test_cfg, **options}
    return MODELS.build(head)


def maps_of(boxes: torch.Tensor, *, sharpness: float = 30.0, images: int = 1) -> tuple[list[Any], list[Any]]:
    """Maps that say the first box at every location near enough to say it, with a score of 0.5."""
    classes, edges = [], []
    coder = OffsetCoder()
    for stride in STRIDES:
        height, width = -(-HW[0] // stride), -(-HW[1] // stride)
        y, x = torch.meshgrid(torch.arange(height) * float(stride), torch.arange(width) * float(stride), indexing="ij")
        points = torch.stack([x, y], dim=-1).view(-1, 2)
        target = coder.encode(points, boxes[:1].expand(len(points), -1))
        rows = torch.full((len(points), 5, 17), -sharpness)
        place = target[:, :4] / stride
        place[:, :2] += 8
        near = (place >= 0).all(dim=1) & (place <= 16).all(dim=1)
        place = place.clamp(0, 16)
        low = place.floor().clamp(max=15)
        rows[:, :4].scatter_(2, low.long()[..., None], (1 - (place - low)).clamp(min=1e-9).log()[..., None])
        rows[:, :4].scatter_(2, low.long()[..., None] + 1, (place - low).clamp(min=1e-9).log()[..., None])
        first, second, share = angle_targets(target[:, 4], bins=17)
        rows[:, 4].scatter_(1, first[:, None], (1 - share).clamp(min=1e-9).log()[:, None])
        rows[:, 4].scatter_(1, second[:, None], share.clamp(min=1e-9).log()[:, None])
        edges.append(rows.view(height, width, 85).permute(2, 0, 1).expand(images, -1, -1, -1).clone())
        score = torch.where(near, 0.0, -20.0).view(1, 1, height, width)
        classes.append(score.expand(images, -1, -1, -1).clone())
    return classes, edges


META = {"img_shape": HW, "pad_shape": HW, "ori_shape": (128, 144), "scale_factor": (96 / 144, 0.5)}
BOX = torch.tensor([[44.0, 30.0, 40.0, 12.0, 0.6]])


def truth(boxes: torch.Tensor) -> InstanceData:
    return InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))


def test_maps_that_say_the_truth_have_hardly_a_loss() -> None:
    head = build_head()
    losses = head.loss_by_feat(*maps_of(BOX), [truth(BOX)], [META])
    assert losses["loss_bbox"] < 1e-2
    turned = BOX + torch.tensor([0, 0, 0, 0, 0.5])
    worse = head.loss_by_feat(*maps_of(turned), [truth(BOX)], [META])
    assert worse["loss_bbox"] > 10 * losses["loss_bbox"]
    assert worse["loss_dfl"] > losses["loss_dfl"] + 0.1
    assert bool((head.assigned.labels == 0).any())


def test_the_quality_is_the_rotated_iou() -> None:
    """A class score of exactly the IoU has no class loss at a positive location."""
    head = build_head()
    turned = BOX + torch.tensor([0, 0, 0, 0, 0.2])
    iou = rotated_iou(turned, BOX, aligned=True)[0]
    classes, edges = maps_of(turned)
    found = []
    for score in (iou - 0.1, iou, iou + 0.1):
        at = [level.clone() for level in classes]
        head.loss_by_feat(at, edges, [truth(BOX)], [META])
        positive = (head.assigned.labels == 0)[0]
        flat = torch.full((len(positive),), -30.0)
        flat[positive] = torch.logit(score)
        at = [part.view_as(level) for part, level in zip(flat.split([96, 24, 6]), classes, strict=True)]
        found.append(float(head.loss_by_feat(at, edges, [truth(BOX)], [META])["loss_cls"]))
    assert found[1] < 1e-4
    assert min(found[0], found[2]) > 1e-3


@pytest.mark.parametrize(
    ("box", "counts"), [((44.0, 30.0, 30.0, 30.0, 0.6), False), ((44.0, 30.0, 40.0, 12.0, 0.6), True)]
)
def test_the_angle_of_a_square_is_not_trained(box: tuple[float, ...], counts: bool) -> None:
    head, logits = build_head(), torch.randn(1, 85, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = OffsetCoder().encode(torch.tensor([[40.0, 32.0]]), torch.tensor([box]))
    target[:, :4] /= 8
    head.distribution_loss(logits, target, torch.ones(1)).backward()
    assert logits.grad is not None
    assert (float(logits.grad[0, 68:].abs().sum()) > 0) == counts
    assert float(logits.grad[0, :68].abs().sum()) > 0


def test_images_without_objects_have_class_losses_alone_and_finite_gradients() -> None:
    head = build_head()
    maps = [[level.requires_grad_() for level in kind] for kind in maps_of(BOX, images=2)]
    losses = head.loss_by_feat(*maps, [truth(torch.zeros(0, 5))] * 2, [META] * 2)
    assert losses["loss_bbox"] == losses["loss_dfl"] == 0
    assert losses["loss_cls"] > 0
    torch.stack(list(losses.values())).sum().backward()
    assert all(bool(level.grad.isfinite().all()) for kind in maps for level in kind)


def test_prediction_finds_the_box_and_maps_it_to_the_original_image() -> None:
    head = build_head()
    maps = maps_of(BOX)
    canvas = head.predict_by_feat(*maps, batch_img_metas=[META], rescale=False)[0]
    assert rotated_iou(canvas.bboxes[:1], BOX, aligned=True)[0] > 0.99
    original = head.predict_by_feat(*maps, batch_img_metas=[META], rescale=True)[0]
    box = original.bboxes[0]
    x, y = 44 * 144 / 96, 60.0
    torch.testing.assert_close(box[:2], torch.tensor([x, y]), rtol=0, atol=0.05)
    along = torch.tensor([40 * math.cos(0.6) * 1.5, 40 * math.sin(0.6) * 2])  # the side w, stretched
    assert float(box[2]) == pytest.approx(float(along.norm()), rel=1e-3)
    assert float(box[4]) == pytest.approx(float(torch.atan2(along[1], along[0])), abs=1e-3)


def test_another_nms_is_refused() -> None:
    head = build_head()
    with pytest.raises(ConfigError, match="the NMS of rotated boxes is 'rotated_cluster_nms'"):
        head.predict_by_feat(
            *maps_of(BOX),
            batch_img_metas=[META],
            cfg=ConfigDict(score_thr=0.05, nms_pre=10, max_per_img=10, nms={"type": "nms", "iou_threshold": 0.5}),
        )


def test_distillation_sees_five_distributions_and_rotated_boxes() -> None:
    head = build_head()
    outputs = read_maps(head, maps_of(BOX))
    assert outputs.edge_logits is not None
    assert outputs.edge_logits.shape == (1, 96 + 24 + 6, 5, 17)
    assert outputs.boxes.shape == (1, 126, 5)
    # At the location of row 4, column 5 of the first level, 4 px left of and 2 px below the centre:
    assert rotated_iou(outputs.boxes[0, 4 * 12 + 5][None], BOX, aligned=True)[0] > 0.99
