"""ATSS, FCOS and RetinaNet with distributions: boxes, assignment, losses, training, prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torchvision.ops import generalized_box_iou

from ld_deploy.distill.heads import read_maps
from ld_deploy.models import ATSSDistributionHead
from ld_runtime import cluster_diou_nms
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ("atss", "fcos", "retina")
SHAPES = [(8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
META = {"img_shape": (64, 96), "pad_shape": (64, 96), "batch_input_shape": (64, 96)}
Step = tuple[torch.Tensor, list[DetDataSample]]


def random_maps(head: Any, *, images: int = 2, seed: int = 0) -> list[list[torch.Tensor]]:
    """Maps of 64 x 96 images as the head's forward gives them."""
    generator = torch.Generator().manual_seed(seed)
    priors = head.num_base_priors
    channels = [2 * priors, 68 * priors] + ([1] if hasattr(head, "loss_centerness") else [])
    return [[torch.randn(images, width, *shape, generator=generator) for shape in SHAPES] for width in channels]


def truth_of(step: Step) -> list[InstanceData]:
    return [sample.gt_instances for sample in step[1]]


@pytest.mark.parametrize(("kind", "expected"), [("atss", (0, 0, 40, 40)), ("fcos", (4, 4, 44, 44))])
def test_box_by_hand(build_detector: Callable[..., Any], kind: str, expected: tuple[float, ...]) -> None:
    # Row 1, column 2 of stride 8: ATSS's centre is (16, 8), FCOS's half a stride on. 2, 1, 3, 4 strides to the sides.
    head = build_detector(kind).bbox_head
    maps = random_maps(head, images=1)
    edges = torch.zeros(1, 4, 17, 8, 12)
    for side, distance in enumerate((2, 1, 3, 4)):
        edges[0, side, distance, 1, 2] = 100
    maps[1][0] = edges.flatten(1, 2)
    boxes = read_maps(head, maps).boxes
    torch.testing.assert_close(boxes[0, 1 * 12 + 2], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_the_distillation_sees_the_boxes_that_the_head_predicts(build_detector: Callable[..., Any], kind: str) -> None:
    head = build_detector(kind).eval().bbox_head
    maps = random_maps(head)
    # Every pair of location and class, not clipped on the far sides.
    cfg = ConfigDict(nms_pre=10**6, score_thr=0.0, min_bbox_size=-1, nms={"type": "nms"})
    far = {**META, "img_shape": (10**6, 10**6)}
    found = head.predict_by_feat(*maps, batch_img_metas=[far, far], cfg=cfg, with_nms=False)
    outputs = read_maps(head, maps)
    scores = outputs.scores
    if len(maps) == 3:
        scores = scores * torch.cat([level.flatten(2).transpose(1, 2) for level in maps[2]], dim=1).sigmoid()
    for image, each in enumerate(found):
        assert len(each) == scores[image].numel()
        order = scores[image].flatten().argsort()
        got = each.scores.argsort()
        torch.testing.assert_close(each.scores[got], scores[image].flatten()[order])
        assert torch.equal(each.labels[got], order % 2)
        torch.testing.assert_close(
            each.bboxes[got], outputs.boxes[image, order // 2].clamp(min=0), atol=1e-4, rtol=1e-5
        )


@pytest.mark.parametrize("kind", KINDS)
def test_assignment_is_in_the_order_of_the_maps(
    build_detector: Callable[..., Any], training_step: Step, kind: str
) -> None:
    head = build_detector(kind).bbox_head
    truth = truth_of(training_step)
    head.loss_by_feat(*random_maps(head), truth, [META, META])
    assigned = head.assigned
    per_location = 9 if kind == "retina" else 1
    assert list(assigned.level_sizes) == [height * width * per_location for height, width in SHAPES]
    assert assigned.has_anchors == (kind != "fcos")
    assert assigned.priors.shape == (2, sum(assigned.level_sizes), 4)
    assert assigned.valid.all()
    centres = (assigned.priors[..., :2] + assigned.priors[..., 2:]) / 2
    # The first image has class 0 alone, the second class 1; a positive's centre lies in its box but for far anchors.
    for image, gt in enumerate(truth):
        positive = assigned.labels[image] < 2
        assert int(positive.sum()) > 1
        assert bool((assigned.labels[image][positive] == image).all())
        inside = (centres[image, positive, None] > gt.bboxes[:, :2]) & (
            centres[image, positive, None] < gt.bboxes[:, 2:]
        )
        assert bool(inside.all(dim=2).any(dim=1).all())
    # Squares of 8 strides around FCOS's points and ATSS's anchors alike.
    if kind != "retina":
        sides = assigned.priors[0, :, 2:] - assigned.priors[0, :, :2]
        starts = [0, 96, 120, 126, 128]
        torch.testing.assert_close(sides[starts], torch.tensor([[64.0], [128], [256], [512], [1024]]).expand(-1, 2))


@pytest.mark.parametrize(("kind", "weight"), [("atss", 2.0), ("fcos", 1.0), ("retina", 2.0)])
def test_box_and_centerness_losses_by_their_formulas(
    build_detector: Callable[..., Any], training_step: Step, kind: str, weight: float
) -> None:
    head = build_detector(kind).bbox_head
    maps = random_maps(head)
    # One object an image, so that a positive's target is known. Without distributions to learn there is no other loss.
    truth = [each[:1] for each in truth_of(training_step)]
    losses = head.loss_by_feat(*maps, truth, [META, META])
    names = {"loss_cls", "loss_bbox"} | ({"loss_centerness"} if len(maps) == 3 else set())
    assert set(losses) == names
    found = {name: float(sum(value) if isinstance(value, list) else value) for name, value in losses.items()}

    outputs, assigned = read_maps(head, maps), head.assigned
    weights, gaps, entropies = [], [], []
    for image, gt in enumerate(truth):
        positive = assigned.labels[image] < 2
        box = gt.bboxes
        gaps.append(1 - generalized_box_iou(outputs.boxes[image, positive], box)[:, 0])
        centre = (assigned.priors[image, positive, :2] + assigned.priors[image, positive, 2:]) / 2
        near, far = (centre - box[:, :2], box[:, 2:] - centre)
        target = (torch.minimum(near, far) / torch.maximum(near, far)).prod(dim=1).sqrt()
        weights.append(target if len(maps) == 3 else torch.ones_like(target))
        if len(maps) == 3:
            logits = torch.cat([level[image].flatten() for level in maps[2]])[positive]
            entropies.append(-(target * logits.sigmoid().log() + (1 - target) * (-logits).sigmoid().log()))
    total, gap = torch.cat(weights), torch.cat(gaps)
    expected = weight * (total * gap).sum() / total.sum()
    assert found["loss_bbox"] == pytest.approx(expected.item(), rel=1e-5)
    if entropies:
        assert found["loss_centerness"] == pytest.approx(torch.cat(entropies).mean().item(), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss(build_detector: Callable[..., Any], training_step: Step, kind: str) -> None:
    model = build_detector(kind).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=0.002)
    totals = []
    for _ in range(12):
        losses = model.loss(*training_step)
        total = sum(sum(value) if isinstance(value, list) else value for value in losses.values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert all(math.isfinite(total) for total in totals)
    assert totals[-1] < 0.9 * totals[0]


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_is_the_voting_nms_on_mmdet_candidates(build_detector: Callable[..., Any], kind: str) -> None:
    model = build_detector(kind).eval()
    head = model.bbox_head
    maps = random_maps(head, images=1)
    cfg = ConfigDict({**head.test_cfg, "score_thr": 0.2, "nms_pre": 50, "pre_nms_top_k": 90})
    candidates = head.predict_by_feat(*maps, batch_img_metas=[META], cfg=cfg, with_nms=False)[0]
    best = candidates.scores.argsort(descending=True)[:90]
    assert len(best) == 90
    nms = {key: value for key, value in cfg.nms.items() if key != "type"}
    boxes, scores, labels = cluster_diou_nms(
        *(each[best].numpy() for each in (candidates.bboxes, candidates.scores, candidates.labels)),
        **nms,
        score_threshold=0.0,
        max_detections=cfg.max_per_img,
        backend="numpy",
    )
    found = head.predict_by_feat(*maps, batch_img_metas=[META], cfg=cfg)[0]
    assert 2 < len(found) < 90
    torch.testing.assert_close(found.scores, torch.tensor(scores))
    assert torch.equal(found.labels, torch.tensor(labels))
    torch.testing.assert_close(found.bboxes, torch.tensor(boxes), atol=2e-3, rtol=0)
    assert bool((found.bboxes[:, 2:] > found.bboxes[:, :2]).all())
    assert found.bboxes.min() >= 0
    assert found.bboxes[:, 2].max() <= 96
    assert found.bboxes[:, 3].max() <= 64


@pytest.mark.parametrize("nms", ["cluster_diou_nms", "nms"])
def test_centerness_comes_after_the_score_threshold(build_detector: Callable[..., Any], nms: str) -> None:
    head = build_detector("atss").eval().bbox_head
    maps = random_maps(head, images=1)
    maps[0] = [torch.full_like(level, -9) for level in maps[0]]
    maps[0][0][0, 1, 4, 6] = math.log(0.9 / 0.1)
    maps[2] = [torch.full_like(level, math.log(0.04 / 0.96)) for level in maps[2]]
    cfg = ConfigDict({**head.test_cfg, "score_thr": 0.05, "nms": {"type": nms, "iou_threshold": 0.6}})
    found = head.predict_by_feat(*maps, batch_img_metas=[META], cfg=cfg)[0]
    assert found.scores.tolist() == pytest.approx([0.9 * 0.04])
    assert found.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("kind", "head", "message"),
    [
        ("atss", {"bbox_coder": {"type": "DeltaXYWHBBoxCoder"}}, "ATSSDistributionHead.*bbox_coder=None"),
        ("retina", {"reg_decoded_bbox": False}, "RetinaDistributionHead.*reg_decoded_bbox=True"),
        ("fcos", {"norm_on_bbox": True}, "FCOSDistributionHead.*norm_on_bbox=False"),
    ],
)
def test_settings_of_the_parents_that_do_not_fit(
    build_detector: Callable[..., Any], kind: str, head: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_detector(kind, head=head)


def test_a_border_is_refused() -> None:
    with pytest.raises(ConfigError, match="allowed_border is 0, not -1"):
        ATSSDistributionHead(num_classes=2, in_channels=32, train_cfg={"allowed_border": 0})
