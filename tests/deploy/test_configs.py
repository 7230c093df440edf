"""Every config builds its model, and its data and evaluator have the form that they name."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the components
from ld_deploy.checkpoint import without_pretrained
from ld_deploy.config import QUANTIZED, QUANTIZED_DISTILLED, load_config, student_only
from ld_deploy.distill.distillation import Distillation
from ld_deploy.distill.teacher import FrozenTeacher
from tests.deploy.config_files import (
    CONFIGS,
    DISTILLED_FILES,
    FILES,
    HUB,
    METAFILES,
    ROWS,
    header_of,
    name_of,
    read,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@functools.cache
def built_on_meta(model: str) -> Any:
    with torch.device("meta"):
        return MODELS.build(Config(json.loads(model))).eval()


def on_meta(config: Config) -> Any:
    """The student's modules as shapes, without memory or initialisation; configs of the same model share it."""
    model = student_only(config).model
    without_pretrained(model)
    del model.data_preprocessor  # reads the values of its mean
    return built_on_meta(json.dumps(model.to_dict(), sort_keys=True))


def found(content: Any, key: str) -> Iterator[Any]:
    """Values of a key at any depth."""
    if isinstance(content, dict):
        yield from (value for name, value in content.items() if name == key)
        content = list(content.values())
    if isinstance(content, (list, tuple)):
        for each in content:
            yield from found(each, key)


def plain_datasets(dataset: Any) -> Iterator[Any]:
    """Without what repeats or joins them."""
    inner = [dataset["dataset"]] if "dataset" in dataset else dataset.get("datasets", [])
    for each in inner:
        yield from plain_datasets(each)
    if not inner:
        yield dataset


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def test_there_are_configs_for_the_published_students_and_their_teacher() -> None:
    names = {name_of(path) for path in FILES}
    assert {f"ld/ld_r{depth}_r101_coco_1x_published.py" for depth in (18, 34, 50)} <= names
    assert {f"gfl/gfl_r{depth}_fpn_coco_1x.py" for depth in (18, 34, 50)} <= names
    folders = {path.relative_to(CONFIGS).parts[0] for path in ROWS}
    assert folders == {
        "ablation",
        "beyond",
        "feature_imitation",
        "gfl",
        "gflv2",
        "heads",
        "ld",
        "rotated",
        "self_ld",
        "voc",
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_config_builds(path: Path) -> None:
    config = read(path)
    model = on_meta(config)
    head = model.bbox_head
    with torch.no_grad():  # widths that do not fit raise here
        maps = head(model.extract_feat(torch.zeros(1, 3, 256, 256, device="meta")))
    assert maps[0][0].shape[1] == head.num_classes * head.num_base_priors
    caffe = config.model.backbone.get("style") == "caffe"
    assert MODELS.build(config.model.data_preprocessor).pad_pixel == ((103, 116, 123) if caffe else (104, 116, 124))
    rotated = head.__class__.__name__.startswith("Rotated")
    assert config.model.test_cfg.nms.type == ("rotated_cluster_nms" if rotated else "cluster_diou_nms")
    assert config.auto_scale_lr.enable or name_of(path).startswith(("compare/", "ssdd/"))
    assert config.test_dataloader.batch_size == 1  # each image is padded by itself, as in the deployed file
    kinds = {each["type"] for each in config.visualizer.vis_backends}
    assert "TensorboardVisBackend" in kinds
    for hook in config.get("custom_hooks", []):
        HOOKS.build(hook)
    for split in ("train", "val", "test"):
        for dataset in plain_datasets(config[f"{split}_dataloader"].dataset):
            kind = DATASETS.get(dataset.type)
            assert kind is not None
            classes = dataset.get("metainfo", {}).get("classes") or kind.METAINFO["classes"]
            assert head.num_classes == len(classes)
        for pipeline in found(config[f"{split}_dataloader"], "pipeline"):
            for step in pipeline:
                assert TRANSFORMS.get(step["type"]) is not None, step
    for split in ("val", "test"):
        for evaluator in as_list(config[f"{split}_evaluator"]):
            assert METRICS.get(evaluator.type) is not None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_pretrained_weights_are_known(path: Path) -> None:
    hub = json.loads(HUB.read_text())
    starts = [each for each in found(read(path).model.backbone.to_dict(), "init_cfg") if each]
    for checkpoint in (each["checkpoint"] for each in starts):
        scheme, name = checkpoint.split("://")
        backbone = read(path).model.backbone
        if scheme == "torchvision":
            assert (backbone.type, name) == ("ResNet", f"resnet{backbone.depth}")
        else:
            assert scheme == "open-mmlab"
            assert name in hub
    if read(path).model.type not in (QUANTIZED, QUANTIZED_DISTILLED):  # they start from a student trained here
        load_from = read(path).get("load_from")
        assert load_from is None or load_from in METAFILES


@functools.cache
def teacher_on_meta(path: Path) -> FrozenTeacher:
    module = on_meta(read(path))
    module.data_preprocessor = MODELS.build(read(path).model.data_preprocessor)
    return FrozenTeacher(module)


@pytest.mark.parametrize("path", DISTILLED_FILES, ids=name_of)
def test_distilled_config_has_terms_and_a_teacher_that_fits(path: Path) -> None:
    config = read(path)
    student = on_meta(config)
    student.data_preprocessor = MODELS.build(config.model.data_preprocessor)
    assert hasattr(student.bbox_head, "assigned")
    options = {key: config.model[key] for key in ("recipe", "cross") if key in config.model}
    teacher = teacher_on_meta(Path(config.model.teacher.config).resolve())
    with torch.device("meta"):
        distillation = Distillation(config.model.distill, **options)
        distillation.connect(student, teacher)
    assert len(distillation.terms) == len(config.model.distill)


@pytest.mark.parametrize("path", DISTILLED_FILES, ids=name_of)
def test_weights_of_the_teacher_are_public_or_trained_here(path: Path) -> None:
    teacher = read(path).model.teacher
    config = Path(teacher.config).resolve()
    assert config in FILES
    if "://" in teacher.checkpoint:
        assert teacher.checkpoint in METAFILES
    elif path in ROWS:
        assert teacher.checkpoint == f"work_dirs/{config.stem}/best.pth"
        assert f"Train the teacher first: ld-deploy train configs/{name_of(config)}" in header_of(path)


@pytest.fixture(scope="module")
def teacher_weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A checkpoint of zeros for a teacher's config."""
    written: dict[str, Path] = {}

    def weights(config: str) -> Path:
        name = str(Path(config).resolve())
        if name not in written:
            shapes = on_meta(load_config(name)).state_dict()
            written[name] = tmp_path_factory.mktemp("teachers") / "teacher.pth"
            state = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}
            torch.save({"state_dict": state, "meta": {}}, written[name])
        return written[name]

    return weights


@pytest.mark.parametrize(
    "name",
    [
        "bccd/ld_student.py",
        "beyond/crosskd_mnv2_r50_coco_1x.py",
        "demo/ld_student.py",
        "ld/ld_r18_r101_coco_1x.py",
        "ld/ld_r18_r101_coco_1x_published.py",
    ],
)
def test_distilled_config_builds_with_the_weights_of_its_teacher(
    name: str, teacher_weights: Callable[[str], Path]
) -> None:
    config = load_config(CONFIGS / name)
    config.model.teacher.checkpoint = str(teacher_weights(config.model.teacher.config))
    without_pretrained(config.model)
    model: Any = MODELS.build(config.model)
    regions = {term["region"] for term in config.model.distill}
    assert {term.region for term in model.distillation.terms} == regions
    own = {key for key in model.state_dict() if not key.startswith("distillation.")}
    assert own == set(on_meta(config).state_dict())


def shrunk(model: Any) -> Any:
    """A model's config at widths that train in a moment, in place: the same types, operators and strides."""
    without_pretrained(model)
    backbone = model.backbone
    widths = {"base_channels": 8, "stem_channels": 8, "frozen_stages": -1, "norm_eval": False}
    backbone.update(
        {
            "ResNet": {"depth": 50 if "dcn" in backbone else 18, **widths},
            "ResNeXt": {"depth": 50, "groups": 2, **widths},
            "Res2Net": {"depth": 50, "base_width": 4, **widths},
            "MobileNetV2": {"widen_factor": 0.25},
        }[backbone.type]
    )
    with torch.device("meta"):
        levels = MODELS.build(backbone)(torch.zeros(1, 3, 64, 64, device="meta"))
    model.neck.update(in_channels=[level.shape[1] for level in levels], out_channels=32)
    model.bbox_head.update(in_channels=32, feat_channels=64)
    return model


def losses_of(model: Any) -> dict[str, torch.Tensor]:
    """Of two images of noise with two boxes, by name; their sum is back-propagated."""
    boxes = InstanceData(bboxes=torch.tensor([[8.0, 8, 90, 100], [40, 30, 70, 60]]), labels=torch.tensor([3, 5]))
    shape = {"img_shape": (128, 128), "ori_shape": (128, 128), "scale_factor": (1.0, 1.0)}
    data = {
        "inputs": [torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8) for _ in range(2)],
        "data_samples": [DetDataSample(gt_instances=boxes, metainfo=shape) for _ in range(2)],
    }
    losses: Any = model(**model.data_preprocessor(data, training=True), mode="loss")
    losses = {key: sum(as_list(value)) for key, value in losses.items() if "loss" in key}
    torch.stack(list(losses.values())).sum().backward()
    return losses


@pytest.mark.parametrize(
    "name",
    [
        "gfl/gfl_r101dcn_fpn_coco_ms2x.py",
        "gfl/gfl_x101dcn_fpn_coco_ms2x.py",
        "gflv2/gflv2_r2n101dcn_coco_ms2x.py",
        "gfl/gfl_mnv2_fpn_coco_1x.py",
    ],
)
def test_backbone_learns_with_the_operators_at_hand(name: str) -> None:
    config = student_only(read(CONFIGS / name))
    torch.manual_seed(0)
    model: Any = MODELS.build(shrunk(config.model))
    losses_of(model)
    gradients = {key: parameter.grad for key, parameter in model.backbone.named_parameters()}
    unused = {key for key, gradient in gradients.items() if gradient is None}
    assert bool(unused) == config.get("find_unused_parameters", False)  # or many GPUs would wait for them for ever
    assert all(gradient.isfinite().all() and gradient.any() for key, gradient in gradients.items() if key not in unused)
    assert any("conv_offset" in key for key in gradients) == ("dcn" in config.model.backbone)


@pytest.mark.parametrize(
    "name",
    [
        "ablation/gamma_0_5.py",
        "beyond/bckd_r18_r101_coco_1x.py",
        "beyond/crosskd_pkd_r50_r101_coco_1x.py",
        "feature_imitation/defeat_r50_r101_coco_1x.py",
        "gflv2/ld_gflv2_x101dcn_r2n101dcn_coco_2x_published.py",
        "heads/ld_atss_r50_r101_coco_1x_published.py",
        "heads/ld_fcos_r50_r101_coco_1x_published.py",
        "heads/ld_retina_r50_r101_coco_1x_published.py",
        "voc/ld_r18_r101_voc_gi_published.py",
    ],
)
def test_distilled_config_takes_a_step(name: str, tmp_path: Path) -> None:
    config = Config(read(CONFIGS / name).to_dict())
    teacher = student_only(read(Path(config.model.teacher.config).resolve()))
    torch.manual_seed(0)
    torch.save({"state_dict": MODELS.build(shrunk(teacher.model)).state_dict(), "meta": {}}, tmp_path / "teacher.pth")
    teacher.dump(tmp_path / "teacher.py")
    shrunk(config.model).teacher = {"config": str(tmp_path / "teacher.py"), "checkpoint": str(tmp_path / "teacher.pth")}
    model: Any = MODELS.build(config.model)
    losses = losses_of(model.train())
    assert all(loss.isfinite() for loss in losses.values())
    assert all(losses[term.loss_name] > 0 for term in model.distillation.terms)


@pytest.mark.parametrize("path", sorted((CONFIGS / "custom").glob("*.py")), ids=name_of)
def test_own_data_takes_few_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < (20 if "baseline" in path.name else 25)


def test_finetuning_takes_all_published_weights_but_the_classifier(
    tiny_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From weights for two classes onto one class of one's own, by the keys of configs/custom/coco_finetuned.py."""
    from ld_deploy.train import build_runner

    torch.manual_seed(0)
    source = load_config(tiny_config)
    published: Any = MODELS.build(source.model)
    published.init_weights()
    torch.save({"state_dict": published.state_dict(), "meta": {}}, tmp_path / "published.pth")
    finetuned = read(CONFIGS / "custom" / "coco_finetuned.py")
    for split in ("train", "val", "test"):
        source[f"{split}_dataloader"].dataset.metainfo = {"classes": ("green",)}
    overrides = {
        "model.bbox_head.num_classes": 1,
        "load_from": str(tmp_path / "published.pth"),
        "custom_hooks": finetuned.custom_hooks,
        "model.backbone.frozen_stages": finetuned.model.backbone.frozen_stages,
    }
    runner: Any = build_runner(source, work_dir=tmp_path / "run", overrides=overrides)
    runner.load_or_resume()
    (early,) = [hook for hook in runner.hooks if type(hook).__name__ == "EarlyStoppingHook"]
    assert early.rule == "greater"
    log = capsys.readouterr()
    assert "size mismatch for bbox_head.gfl_cls.weight" in log.out + log.err
    state, before = runner.model.state_dict(), published.state_dict()
    fresh = {key for key in state if state[key].shape != before[key].shape or not state[key].equal(before[key])}
    assert fresh == {"bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias"}
    frozen = [p.requires_grad for p in runner.model.backbone.layer2.parameters()]
    assert not any(frozen)
