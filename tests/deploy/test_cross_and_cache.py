"""The cross branch and the teacher's cache in a whole detector."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

from ld_deploy.checkpoint import load_model, load_weights
from ld_deploy.distill.cache import TeacherCache, pixel_key
from ld_deploy.distill.cross import align
from ld_deploy.distill.feature_terms import standardised
from ld_deploy.distill.teacher import FrozenTeacher
from ld_runtime.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

CROSS = [
    {"type": "BinaryClassificationKD", "region": "full", "weight": 1, "branch": "cross"},
    {"type": "LocalizationKD", "region": "teacher_score", "weight": 68, "temperature": 1, "branch": "cross"},
]


@pytest.fixture
def build(tiny_config: Path, tmp_path: Path) -> Callable[..., Any]:
    """A distilled detector on the tiny config with towers of two convolutions; the teacher's weights are random."""

    def make(*, distill: list[dict[str, Any]], teacher: dict[str, Any] | None = None, **changes: Any) -> Any:
        config = Config.fromfile(tiny_config)
        config.model.bbox_head.stacked_convs = 2
        teacher_config = copy.deepcopy(config)
        teacher_config.model.bbox_head.update((teacher or {}).pop("head", {}) if teacher else {})
        neck_width = teacher_config.model.bbox_head.in_channels
        teacher_config.model.neck.out_channels = neck_width
        torch.manual_seed(1)
        frozen = load_model(teacher_config, None)
        torch.save({"state_dict": frozen.state_dict()}, tmp_path / "teacher.pth")
        teacher_config.dump(str(tmp_path / "teacher.py"))
        named = {"config": str(tmp_path / "teacher.py"), "checkpoint": str(tmp_path / "teacher.pth"), **(teacher or {})}
        config.model.update(type="DistilledDetector", teacher=named, distill=distill, **changes)
        torch.manual_seed(0)
        model: Any = MODELS.build(config.model)
        return model.train()

    return make


def sample() -> tuple[torch.Tensor, list[DetDataSample]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    samples = []
    for boxes in (torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.zeros(0, 4)):
        each = DetDataSample(metainfo={"img_shape": (64, 96), "pad_shape": (64, 96), "batch_input_shape": (64, 96)})
        each.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
        samples.append(each)
    return images, samples


def test_cross_gradients_reach_the_student_and_not_the_teacher(build: Callable[..., Any]) -> None:
    model = build(distill=CROSS)
    losses = model.loss(*sample())
    cross = losses["loss_cross_bkd_full"] + losses["loss_cross_ld_teacher_score"]
    assert cross > 0
    cross.backward()
    head = model.bbox_head
    assert head.cls_convs[0].conv.weight.grad.abs().sum() > 0
    assert head.reg_convs[0].conv.weight.grad.abs().sum() > 0
    # What lies behind the cut is the teacher's: the student's own predictors get nothing from these terms.
    assert head.gfl_cls.weight.grad is None
    assert head.cls_convs[1].conv.weight.grad is None
    assert all(parameter.grad is None for parameter in model.teacher.module.parameters())


def test_cross_branch_of_a_student_with_the_teachers_own_weights_predicts_as_the_teacher(
    build: Callable[..., Any],
) -> None:
    model = build(distill=CROSS)
    weights = model.teacher.module.state_dict()
    load_weights(model, {"state_dict": weights}, name="the teacher's")
    model.eval()  # BatchNorm as the teacher's
    _, batch = model.step(*sample())
    torch.testing.assert_close(batch.cross.class_logits, batch.teacher.class_logits, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(batch.cross.edge_logits, batch.teacher.edge_logits, rtol=1e-3, atol=1e-4)
    losses = model.distillation(batch)
    assert losses["loss_cross_bkd_full"].item() == pytest.approx(0, abs=1e-5)


def test_cross_between_other_widths_trains_an_adapter_that_is_no_part_of_the_student(build: Callable[..., Any]) -> None:
    model = build(distill=CROSS, teacher={"head": {"feat_channels": 32, "in_channels": 48}})
    losses = model.loss(*sample())
    sum(value for key, value in losses.items() if "loss" in key).backward()
    trained = [name for name, each in model.distillation.named_parameters() if each.grad is not None]
    assert sorted(trained) == [
        f"cross.adapters.{tower}.{part}" for tower in ("cls_convs", "reg_convs") for part in ("bias", "weight")
    ]
    student = load_model(model_config(model), None)
    load_weights(student, {"state_dict": model.state_dict()}, name="trained")  # the adapters are left out
    torch.testing.assert_close(student.bbox_head.gfl_cls.weight, model.bbox_head.gfl_cls.weight)


def model_config(model: Any) -> Config:
    """A config whose student has this model's shapes."""
    return Config({
        "model": {
            "type": "SingleStageDetector",
            "backbone": {
                "type": "ResNet", "depth": 18, "base_channels": 8, "stem_channels": 8, "frozen_stages": -1,
                "norm_eval": False,
            },
            "neck": {
                "type": "FPN", "in_channels": [8, 16, 32, 64], "out_channels": 64, "start_level": 1,
                "add_extra_convs": "on_output", "num_outs": 5,
            },
            "bbox_head": {
                "type": "GFLVotingHead", "num_classes": 2, "in_channels": 64, "feat_channels": 64, "stacked_convs": 2,
                "anchor_generator": {
                    "type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1,
                    "strides": [8, 16, 32, 64, 128],
                },
                "loss_cls": {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0},
                "loss_dfl": {"type": "DistributionFocalLoss", "loss_weight": 0.25},
                "loss_bbox": {"type": "GIoULoss", "loss_weight": 2.0},
            },
            "data_preprocessor": {
                "type": "PadMeanPreprocessor", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375],
                "bgr_to_rgb": True, "pad_size_divisor": 32,
            },
            "test_cfg": {"score_thr": 0.05, "nms": {"type": "cluster_diou_nms"}, "max_per_img": 100},
        }
    })  # fmt: skip


def test_validation_between_steps_leaves_nothing_behind(build: Callable[..., Any]) -> None:
    model = build(distill=CROSS)
    first = {key: value.item() for key, value in model.loss(*sample()).items()}
    with torch.no_grad():
        model.bbox_head(model.extract_feat(torch.randn(1, 3, 64, 64)))  # as a validation image would
        model.bbox_head(model.extract_feat(torch.randn(1, 3, 64, 64)))
    model.zero_grad()
    again = {key: value.item() for key, value in model.loss(*sample()).items()}
    assert again == pytest.approx(first, rel=0.05)  # BatchNorm's train mode does not depend on its statistics
    assert len(model.distillation.cross.recorder.maps["cls_convs"]) == 0


def test_towers_are_recorded_after_their_activation(build: Callable[..., Any]) -> None:
    model = build(distill=CROSS)
    module, seen = model.bbox_head.cls_convs[0], list[torch.Tensor]()
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
    model.bbox_head(model.extract_feat(sample()[0]))
    recorded = model.distillation.cross.recorder.take()["cls_convs"]
    for first, second in zip(recorded, seen, strict=True):
        torch.testing.assert_close(first, second)
        assert first.min() == 0


@pytest.mark.parametrize("recipe", ["default", "published"])
def test_alignment_is_by_image_or_as_published_by_batch(build: Callable[..., Any], recipe: str) -> None:
    model = build(distill=CROSS, recipe=recipe).eval()
    images, samples = sample()
    other = torch.cat([images[:1], images[1:] * 3 + 1])
    first, second = (model.step(each, samples)[1].cross for each in (images, other))
    same = torch.allclose(first.class_logits[0], second.class_logits[0], atol=1e-5)
    assert same is (recipe == "default")


def test_half_precision_maps_do_not_lose_their_variance() -> None:
    for maps in (torch.randn(2, 4, 1, 1).half(), torch.randn(2, 4, 5, 5).half() * 1e-4):
        assert torch.isfinite(standardised(maps, (2, 3))).all()
        aligned = align(maps, torch.randn(2, 4, 5, 5), axes=(2, 3))
        assert aligned.dtype == torch.float32
        assert torch.isfinite(aligned).all()


def test_cut_at_the_end_runs_the_teachers_predictors_alone(build: Callable[..., Any]) -> None:
    model = build(distill=CROSS, cross={"convs": "all"}, teacher={"head": {"stacked_convs": 3}})
    rest = model.distillation.cross._rest[0]._head
    assert [len(getattr(rest, tower)) for tower in ("cls_convs", "reg_convs")] == [1, 1]  # the feed alone
    losses = model.loss(*sample())
    losses["loss_cross_bkd_full"].backward()
    assert model.bbox_head.cls_convs[-1].conv.weight.grad.abs().sum() > 0
    assert model.bbox_head.gfl_cls.weight.grad is None


def test_copy_of_the_student_shares_teacher_and_cross(build: Callable[..., Any]) -> None:
    model = build(distill=CROSS)
    twin = copy.deepcopy(model)
    assert twin.teacher is model.teacher
    assert twin.distillation.cross._rest[0] is model.distillation.cross._rest[0]


@pytest.mark.parametrize(
    ("distill", "changes", "message"),
    [
        (CROSS, {"cross": {"convs": 3}}, "cuts the student's towers after convolution 3; they have 2"),
        (CROSS, {"cross": {"convs": 0}}, "after convolution 0"),
        ([{**CROSS[0], "branch": "other"}], {}, "branch must be one of own, cross"),
        ([{"type": "PearsonKD", "weight": 1}], {"cross": {"convs": 1}}, "no term with branch='cross'"),
        ([{"type": "FeatureKD", "region": "gi", "weight": 1, "branch": "cross"}], {}, "it has no cross branch"),
    ],
)
def test_bad_cross_settings_are_named(
    build: Callable[..., Any], distill: list[dict[str, Any]], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build(distill=distill, **changes)


ALL = [
    {"type": "LocalizationKD", "region": "main", "weight": 1, "temperature": 10},
    {"type": "FeatureKD", "region": "gi", "weight": 1},
    {"type": "PearsonKD", "weight": 1},
    *CROSS,
]


def test_cached_teacher_gives_the_same_losses_and_is_not_asked_again(build: Callable[..., Any], tmp_path: Path) -> None:
    live = build(distill=ALL)
    cached = build(distill=ALL, teacher={"cache": str(tmp_path / "cache")})
    wanted = live.loss(*sample())
    first = cached.loss(*sample())
    assert (cached.teacher._cache.hits, cached.teacher._cache.misses) == (0, 2)
    cached.teacher.module.extract_feat = None  # whoever asks it now fails
    images, samples = sample()
    second = cached.loss(images.flip(0), samples[::-1])
    assert (cached.teacher._cache.hits, cached.teacher._cache.misses) == (2, 2)
    for key, value in wanted.items():
        assert first[key].item() == pytest.approx(value.item(), rel=2e-2, abs=1e-4), key  # float16 on disk
        assert second[key].item() == pytest.approx(first[key].item(), rel=1e-4, abs=1e-5), key


def test_cache_tells_pixels_padding_weights_and_kinds_apart(tmp_path: Path) -> None:
    image = torch.randn(3, 8, 8)
    other = image.clone()
    other[1, 2, 3] += 1e-6
    assert pixel_key(image) == pixel_key(image.clone())
    assert len({pixel_key(image), pixel_key(other), pixel_key(image.view(3, 4, 16)), pixel_key(image[:, :, :7])}) == 4
    caches = [
        TeacherCache(tmp_path, teacher=name, kind=kind) for name, kind in (("a", "head"), ("b", "head"), ("a", "x"))
    ]
    assert len({cache.folder for cache in caches}) == 3


def test_cache_of_a_teacher_is_of_its_precision_and_config(build: Callable[..., Any], tmp_path: Path) -> None:
    folders = set()
    for changes in ({}, {"precision": "bfloat16"}, {"precision": "float32"}):
        model = build(distill=ALL[:1], teacher={"cache": str(tmp_path / "cache"), **changes})
        model.teacher(sample()[0])
        folders.add(model.teacher._cache.folder.name.split("_", maxsplit=1)[1])
    assert folders == {"float32_head", "bfloat16_head"}  # as the student trains is float32 here
    names = set()
    for text in ("", "another = 1\n"):
        (tmp_path / "teacher.py").write_text((tmp_path / "teacher.py").read_text() + text)
        named = {"config": str(tmp_path / "teacher.py"), "checkpoint": str(tmp_path / "teacher.pth")}
        names.add(FrozenTeacher.load(named).weights_name)
    assert len(names) == 2


def test_cache_computes_what_is_missing_and_names_a_damaged_file(tmp_path: Path) -> None:
    cache = TeacherCache(tmp_path, teacher="t", kind="head")
    asked: list[int] = []

    def compute(images: torch.Tensor) -> list[list[torch.Tensor]]:
        asked.append(len(images))
        return [[images * 2], [images[:, :1]]]

    images = torch.arange(3).view(3, 1, 1, 1).expand(3, 3, 4, 4).float()
    cache(images[:2], compute)
    maps = cache(images.flip(0), compute)
    assert asked == [2, 1]
    torch.testing.assert_close(maps[0][0], images.flip(0) * 2)
    torch.testing.assert_close(maps[1][0], images.flip(0)[:, :1])
    for file in cache.folder.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(CheckpointError, match="is damaged"):
        cache(images, compute)
    with pytest.raises(CheckpointError, match="do not fit into float16"):
        TeacherCache(tmp_path, teacher="u", kind="head")(images, lambda each: [[each * 1e6]])


def test_teacher_in_bfloat16_is_near_and_gives_float32(build: Callable[..., Any]) -> None:
    exact = build(distill=ALL[:1]).teacher(sample()[0])
    rough = build(distill=ALL[:1], teacher={"precision": "bfloat16"}).teacher(sample()[0])
    assert rough.head.class_logits.dtype == torch.float32
    difference = (rough.head.class_logits - exact.head.class_logits).abs().max()
    assert 0 < difference < 0.1
    with pytest.raises(ConfigError, match="precision must be one of"):
        build(distill=ALL[:1], teacher={"precision": "int8"})
