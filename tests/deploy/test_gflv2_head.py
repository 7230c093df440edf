"""GFLv2's quality branch: its formula, the published outputs, losses and gradients, and published weights."""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.checkpoint import load_weights
from ld_deploy.distill.batch import DistillBatch
from ld_deploy.distill.heads import read_maps
from ld_deploy.distill.regions import REGIONS
from ld_deploy.distill.terms import ClassificationKD, LocalizationKD
from ld_deploy.models import GFLv2VotingHead
from ld_deploy.models.gflv2_head import joint_logits
from ld_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

ORACLES = Path(__file__).parents[1] / "oracles"
# The whole set of arrays, where it lies beside the checkout; a part of it is in ORACLES.
SHARED = Path(__file__).parents[3] / "shared" / "oracles" / "ld_head_loss.npz"
STRIDES = [8, 16, 32, 64, 128]


@pytest.fixture(scope="module")
def arrays() -> Any:
    return np.load(ORACLES / "gflv2.npz")


def make_head(classes: int, **changes: Any) -> GFLv2VotingHead:
    square = {"type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1}
    return GFLv2VotingHead(
        **{
            "num_classes": classes,
            "in_channels": 32,
            "feat_channels": 32,
            "stacked_convs": 1,
            "anchor_generator": {**square, "strides": STRIDES},
            "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
            "loss_dfl": {"type": "DistributionFocalLoss", "loss_weight": 0.25},
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            "train_cfg": {"assigner": {"type": "ATSSAssigner", "topk": 9}, "allowed_border": -1, "pos_weight": -1},
            **changes,
        }
    )


def test_joint_logits_by_hand() -> None:
    # 1/2 * 1/2 = 1/4, odds 1 to 3; 3/4 * 1/2 = 3/8, odds 3 to 5.
    found = joint_logits(torch.tensor([0.0, math.log(3)]), torch.tensor([0.0, 0.0]))
    torch.testing.assert_close(found, torch.tensor([-math.log(3), math.log(3 / 5)]))


def test_joint_logits_and_gradients_against_the_product_in_float64() -> None:
    grid = torch.linspace(-12, 12, 49)
    pairs = torch.cartesian_prod(grid, grid)
    a, b = (side.clone().requires_grad_() for side in pairs.unbind(dim=1))
    found = joint_logits(a, b)
    found.sum().backward()
    wide_a, wide_b = (side.double().requires_grad_() for side in pairs.unbind(dim=1))
    expected = (wide_a.sigmoid() * wide_b.sigmoid()).logit()
    expected.sum().backward()
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=2e-5)
    for got, wanted in ((a.grad, wide_a.grad), (b.grad, wide_b.grad)):
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-5)


def test_joint_logits_far_out_are_the_smaller_logit_and_finite() -> None:
    far = torch.tensor([-1e4, -200.0, 200.0, 1e4])
    a, b = (side.clone().requires_grad_() for side in torch.cartesian_prod(far, far).unbind(dim=1))
    found = joint_logits(a, b)
    found.sum().backward()
    both_low = (a < 0) & (b < 0)
    expected = torch.where(both_low, a + b, torch.minimum(a, b)).detach()
    # Two equal positive logits of x: the odds against are 2 e^-x.
    expected -= math.log(2) * ((a == b) & (a > 0))
    torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-4)
    for gradient in (a.grad, b.grad):
        assert bool(((gradient >= 0) & (gradient <= 1)).all())


@pytest.mark.parametrize("level", [1, 2])
def test_published_scores(arrays: Any, level: int) -> None:
    head = make_head(20)
    weights = {key: torch.tensor(arrays[f"v2.reg_conf.{key}"]) for key in ("0.weight", "0.bias", "2.weight", "2.bias")}
    head.reg_conf.load_state_dict(weights)
    logits, edges = (torch.tensor(arrays[f"v2.{kind}.{level}"]) for kind in ("logit", "bbox"))
    published = arrays[f"v2.score.{level}"]
    with torch.no_grad():
        np.testing.assert_allclose(head.join(logits, edges).sigmoid(), published, rtol=1e-6)
        # Those weights are untrained, and the quality is near a half. To see it, take the class out of the scores.
        sure = torch.full_like(logits[:, :1], 50)
        found, upside_down = head.join(sure, edges), head.join(sure, edges.unflatten(1, (4, -1)).flip(1).flatten(1, 2))
    product = published.astype(np.float64).mean(axis=1) / logits.double().sigmoid().mean(dim=1).numpy()
    expected = np.log(product / (1 - product))[:, None]
    np.testing.assert_allclose(found, expected, atol=5e-7)
    assert np.abs(upside_down.numpy() - expected).max() > 5e-6


@pytest.mark.parametrize(("add_mean", "width"), [(True, 3), (False, 2)])
def test_statistics_by_hand(add_mean: bool, width: int) -> None:
    head = make_head(1, reg_max=3, reg_topk=2, reg_channels=1, add_mean=add_mean)
    assert head.reg_conf[0].in_channels == 4 * width
    # Left: 1/2, 1/4, 1/8, 1/8 in an order of its own; the other sides uniform.
    left = torch.tensor([1 / 8, 1 / 2, 1 / 8, 1 / 4]).log()
    edges = torch.cat([left, torch.zeros(12)]).view(1, 16, 1, 1)
    expected = [1 / 2, 1 / 4, 3 / 8][:width] + [1 / 4] * width * 3
    for place, value in enumerate(expected):
        with torch.no_grad():
            head.reg_conf[0].weight.zero_()[0, place] = 1
            head.reg_conf[0].bias.zero_()
            head.reg_conf[2].weight.fill_(1)
            head.reg_conf[2].bias.zero_()
            quality = head.join(torch.full((1, 1, 1, 1), 50.0), edges)  # a sure class: the quality's logit itself
        assert quality.item() == pytest.approx(value, abs=1e-6)


PUBLISHED = {
    "loss_ld": LocalizationKD(region="main", weight=0.25, temperature=10),
    "loss_ld_vlr": LocalizationKD(region="vlr", weight=0.25, temperature=10),
    "loss_kd": ClassificationKD(region="main", weight=10, temperature=2),
}


class Case:
    """The stored whole-head case. Its class maps have the published channel 21 of 20 classes, so has this head."""

    def __init__(self, arrays: Any) -> None:
        def maps(kind: str) -> list[torch.Tensor]:
            return [torch.tensor(arrays[f"v2_gibox2.{kind}.{level}"]).float() for level in range(5)]

        self.class_maps, self.edge_maps = ([t.requires_grad_() for t in maps(kind)] for kind in ("s_cls", "s_reg"))
        joint = [
            joint_logits(classes, quality.logit())
            for classes, quality in zip(self.class_maps, maps("s_q"), strict=True)
        ]
        self.instances = [
            InstanceData(
                bboxes=torch.tensor(arrays[f"v2_gibox2.gt.{i}"]), labels=torch.tensor(arrays[f"v2_gibox2.gtl.{i}"])
            )
            for i in range(2)
        ]
        metas = [{"img_shape": (160, 192), "pad_shape": (160, 192)}] * 2
        head = make_head(21)
        maps_of_student = joint, self.edge_maps, self.class_maps
        self.losses: dict[str, torch.Tensor] = head.loss_by_feat(*maps_of_student, self.instances, metas)
        assert head.assigned is not None
        teacher_classes = maps("t_cls")
        batch = DistillBatch(
            student=read_maps(head, maps_of_student),
            teacher=read_maps(head, (teacher_classes, maps("t_reg"), teacher_classes)),
            assigned=head.assigned,
            gt_boxes=[each.bboxes for each in self.instances],
        )
        for key, term in PUBLISHED.items():
            self.losses[key] = term(batch, REGIONS[term.region](batch, recipe="published"), recipe="published")
        self.batch = batch


@pytest.mark.parametrize("whole", [False] + [True] * SHARED.is_file())
def test_published_losses_and_gradients(arrays: Any, *, whole: bool) -> None:
    stored = np.load(SHARED) if whole else arrays
    case = Case(stored)
    assert set(case.losses) == {"loss_cls", "loss_bbox", "loss_dfl", "loss_ld", "loss_ld_vlr", "loss_kd"}
    for key, loss in case.losses.items():
        np.testing.assert_allclose(loss.item(), stored[f"v2_gibox2.{key}"].sum(), rtol=1e-5)
    torch.stack(list(case.losses.values())).sum().backward()
    for kind, maps in (("cls", case.class_maps), ("reg", case.edge_maps)):
        assert np.abs(stored[f"v2_gibox2.grad_{kind}.1"]).max() > 1e-3
        for level in range(5) if whole else (1,):
            expected = stored[f"v2_gibox2.grad_{kind}.{level}"]
            np.testing.assert_allclose(maps[level].grad, expected, rtol=1e-4, atol=1e-8)


def test_scores_are_joint_and_class_logits_are_raw(arrays: Any) -> None:
    student = Case(arrays).batch.student
    assert student.joint_scores is not None
    assert bool((student.scores < student.class_logits.sigmoid()).all())
    quality = np.concatenate([arrays[f"v2_gibox2.s_q.{level}"].reshape(2, -1) for level in range(5)], axis=1)
    expected = student.class_logits.detach().sigmoid().numpy() * quality[..., None].astype(np.float32)
    np.testing.assert_allclose(student.scores.detach(), expected, rtol=1e-5)
    np.testing.assert_allclose(student.best_scores, expected.max(axis=2), rtol=1e-5)


def test_forward_gives_three_maps_and_predict_scores_by_the_first(build_detector: Callable[..., Any]) -> None:
    model = build_detector("gflv2").eval()
    head = model.bbox_head
    with torch.no_grad():
        maps = head(model.extract_feat(torch.randn(2, 3, 64, 96)))
    assert [len(kind) for kind in maps] == [5, 5, 5]
    assert [tuple(kind[0].shape[1:]) for kind in maps] == [(2, 8, 12), (68, 8, 12), (2, 8, 12)]
    meta = {"img_shape": (64, 96), "batch_input_shape": (64, 96)}
    found = head.predict_by_feat(*maps, batch_img_metas=[meta, meta])
    outputs = read_maps(head, maps)
    for image, each in enumerate(found):
        assert 0 < len(each) <= 100
        assert each.scores[0].item() == pytest.approx(outputs.scores[image].max().item(), rel=1e-6)
        assert each.scores[0] < outputs.class_logits[image].sigmoid().max()


def published_weights(head: Any) -> OrderedDict[str, torch.Tensor]:
    """The head's weights with a class channel more at the end, as published checkpoints have it."""
    state = OrderedDict((key, value.clone()) for key, value in head.state_dict().items())
    for key in ("gfl_cls.weight", "gfl_cls.bias"):
        state[key] = torch.cat([state[key] + 1, torch.full_like(state[key][:1], -9)])
    return state


def test_parameters_have_the_published_names() -> None:
    shapes = {key: tuple(value.shape) for key, value in make_head(80).state_dict().items() if "reg_conf" in key}
    assert shapes == {
        "reg_conf.0.weight": (64, 20, 1, 1),
        "reg_conf.0.bias": (64,),
        "reg_conf.2.weight": (1, 64, 1, 1),
        "reg_conf.2.bias": (1,),
    }


def test_published_weights_load_in_mmengine_and_here(build_detector: Callable[..., Any], tmp_path: Path) -> None:
    model = build_detector("gflv2")
    wanted = model.bbox_head.gfl_cls.weight.detach().clone() + 1
    state = {**model.state_dict(), **{f"bbox_head.{k}": v for k, v in published_weights(model.bbox_head).items()}}
    assert state["bbox_head.gfl_cls.weight"].shape[0] == 3
    untouched = copy.deepcopy(state)
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "published.pth")

    fresh = build_detector("gflv2")
    load_checkpoint(fresh, str(tmp_path / "published.pth"), map_location="cpu", strict=True)
    torch.testing.assert_close(fresh.bbox_head.gfl_cls.weight.detach(), wanted)

    for meta in ({}, {"CLASSES": ("ant", "bee")}, {"dataset_meta": {"classes": ("ant", "bee")}}):
        again = build_detector("gflv2")
        load_weights(again, {"state_dict": state, "meta": meta}, name="published.pth")
        torch.testing.assert_close(again.bbox_head.gfl_cls.weight.detach(), wanted)
        assert again.bbox_head.gfl_cls.bias.shape == (2,)
    assert all(torch.equal(state[key], value) for key, value in untouched.items())


def test_weights_of_other_classes_are_refused(build_detector: Callable[..., Any]) -> None:
    model = build_detector("gflv2")
    three = {"dataset_meta": {"classes": ("ant", "bee", "cat")}}
    state = {**model.state_dict(), **{f"bbox_head.{k}": v for k, v in published_weights(model.bbox_head).items()}}
    with pytest.raises(CheckpointError, match=r"gfl_cls.weight is \(3, .*the model's \(2,"):
        load_weights(model, {"state_dict": state, "meta": three}, name="other.pth")
    state["bbox_head.gfl_cls.weight"] = torch.zeros(4, 64, 3, 3)
    with pytest.raises(CheckpointError, match=r"gfl_cls.weight is \(4, "):
        load_weights(model, {"state_dict": state, "meta": {}}, name="other.pth")


TERMS = [
    {"type": "LocalizationKD", "region": "main", "weight": 1, "temperature": 10},
    {"type": "LocalizationKD", "region": "vlr", "weight": 1, "temperature": 10},
    {"type": "ClassificationKD", "region": "main", "weight": 1, "temperature": 2},
    {"type": "FeatureKD", "region": "gi", "weight": 1},
    {"type": "BinaryClassificationKD", "region": "full", "weight": 1, "branch": "cross"},
]


@pytest.mark.parametrize(("student", "teacher"), [("gflv2", "gflv2"), ("gflv2", "gfl"), ("gfl", "gflv2")])
def test_is_distilled_and_distils(
    build_detector: Callable[..., Any], training_step: tuple[Any, list[Any]], student: str, teacher: str
) -> None:
    model = build_detector(student, teacher=teacher, distill=TERMS).train()
    losses = model.loss(*training_step)
    names = {"loss_ld_main", "loss_ld_vlr", "loss_kd_main", "loss_im_gi", "loss_cross_bkd_full"}
    assert all(losses[name] > 0 for name in names)
    sum(value for name, value in losses.items() if "loss" in name).backward()
    for name, parameter in model.bbox_head.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert parameter.grad.abs().sum() > 0 or name.startswith("scales"), name  # a level may have no positive


def test_a_few_steps_lower_the_loss(build_detector: Callable[..., Any], training_step: tuple[Any, list[Any]]) -> None:
    model = build_detector("gflv2").train()
    torch.nn.init.zeros_(model.bbox_head.gfl_cls.bias)  # else the box losses grow first: their divisor is at least 1
    optimiser = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    totals = []
    for _ in range(12):
        total = sum(model.loss(*training_step).values())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert all(math.isfinite(total) for total in totals)
    assert totals[-1] < 0.9 * totals[0]
