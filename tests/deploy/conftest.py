from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def coco_document(
    sizes: list[tuple[int, int]], *, classes: tuple[str, ...], boxes: dict[int, list[Any]]
) -> dict[str, Any]:
    """A COCO document: image i has height, width sizes[i] and the (label, x, y, w, h) of boxes[i]."""
    rows = [(image, *box) for image, found in boxes.items() for box in found]
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(sizes)],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(classes)],
        "annotations": [
            {
                "id": i + 1,
                "image_id": image,
                "category_id": label + 1,
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": 0,
            }
            for i, (image, label, x, y, w, h) in enumerate(rows)
        ],
    }


@pytest.fixture(autouse=True)
def mmdet_scope() -> Iterator[None]:
    """Bare type names mean mmdet's, whatever an earlier test left as the global scope."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture(scope="session")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of one bright square each on a dark ground, of two sizes; image 11 has none. COCO format."""
    root = tmp_path_factory.mktemp("squares")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    sizes = [(64, 96) if i % 3 else (70, 50) for i in range(12)]
    boxes: dict[int, list[Any]] = {}
    for i, (height, width) in enumerate(sizes):
        image = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        if i < 11:
            side, label = 16 + 2 * (i % 8), i % 2
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            image[y : y + side, x : x + side] = (40, 220, 60) if label else (230, 60, 40)
            boxes[i] = [(label, x, y, side, side)]
        cv2.imwrite(str(root / "images" / f"{i}.png"), image)
    document = coco_document(sizes, classes=("blue", "green"), boxes=boxes)
    (root / "train.json").write_text(json.dumps(document), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def tiny_config(squares: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student small enough to train in seconds, on `squares`."""
    base = Path(__file__).parents[2] / "configs" / "gfl" / "gfl_r18_fpn_coco_1x.py"
    text = f"""
_base_ = {str(base)!r}
meta = dict(classes=('blue', 'green'))
model = dict(
    backbone=dict(base_channels=8, stem_channels=8, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=64),
    bbox_head=dict(num_classes=2, in_channels=64, feat_channels=64, stacked_convs=1),
    test_cfg=dict(score_thr=0.001))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='PackDetInputs')]
split = dict(
    data_root={str(squares) + "/"!r}, metainfo=meta, ann_file='train.json', data_prefix=dict(img='images/'),
    pipeline=pipeline)
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False,
    dataset=dict(filter_cfg=dict(filter_empty_gt=False), **split))
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=split)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={str(squares / "train.json")!r})
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
"""
    path = tmp_path_factory.mktemp("configs") / "tiny.py"
    path.write_text(text, encoding="utf-8")
    return path


def head_configs() -> dict[str, dict[str, Any]]:
    """Every head that is distilled, and two of mmdet's as teachers, for two classes on the tiny config's neck."""
    common = {"num_classes": 2, "in_channels": 64, "feat_channels": 64, "stacked_convs": 1}
    strides = [8, 16, 32, 64, 128]
    square = {"type": "AnchorGenerator", "ratios": [1.0], "octave_base_scale": 8, "scales_per_octave": 1}
    nine = {"type": "AnchorGenerator", "ratios": [0.5, 1.0, 2.0], "octave_base_scale": 4, "scales_per_octave": 3}
    focal = {"type": "FocalLoss", "use_sigmoid": True, "gamma": 2.0, "alpha": 0.25, "loss_weight": 1.0}
    quality = {"type": "QualityFocalLoss", "use_sigmoid": True, "beta": 2.0, "loss_weight": 1.0}
    giou = {"type": "GIoULoss", "loss_weight": 2.0}
    gfl = {**common, "anchor_generator": {**square, "strides": strides}, "loss_cls": quality, "loss_bbox": giou}
    atss = {**common, "anchor_generator": {**square, "strides": strides}, "loss_cls": focal, "loss_bbox": giou}
    retina = {**common, "anchor_generator": {**nine, "strides": strides}, "loss_cls": focal, "loss_bbox": giou}
    fcos = {
        **common,
        "strides": strides,
        "loss_cls": focal,
        "loss_bbox": {"type": "GIoULoss", "loss_weight": 1.0},
        "center_sampling": True,
        "centerness_on_reg": True,
    }
    return {
        "gfl": {"type": "GFLVotingHead", **gfl},
        "gflv2": {"type": "GFLv2VotingHead", **gfl},
        "atss": {"type": "ATSSDistributionHead", **atss},
        "fcos": {"type": "FCOSDistributionHead", **fcos},
        "retina": {"type": "RetinaDistributionHead", **retina},
        "plain_atss": {"type": "ATSSHead", **atss},
        "plain_retina": {"type": "RetinaHead", **retina, "reg_decoded_bbox": True},
    }


@pytest.fixture
def build_detector(tiny_config: Path, tmp_path: Path) -> Callable[..., Any]:
    """Makes a detector with random weights; with a teacher's kind of head and terms, a distilled one."""
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config

    from ld_deploy.checkpoint import load_model

    def config_of(kind: str, changes: dict[str, Any]) -> Config:
        config = Config.fromfile(tiny_config)
        config.model.bbox_head = {**head_configs()[kind], **changes}
        if "retina" in kind:
            max_iou = {"type": "MaxIoUAssigner", "pos_iou_thr": 0.5, "neg_iou_thr": 0.4, "min_pos_iou": 0}
            config.model.train_cfg.assigner = {**max_iou, "ignore_iof_thr": -1}
            config.model.train_cfg.sampler = {"type": "PseudoSampler"}
        return config

    def make(
        kind: str,
        *,
        teacher: str | None = None,
        head: dict[str, Any] | None = None,
        teacher_head: dict[str, Any] | None = None,
        **distillation: Any,
    ) -> Any:
        config = config_of(kind, head or {})
        if teacher is not None:
            torch.manual_seed(1)
            teacher_config = config_of(teacher, teacher_head or {})
            torch.save({"state_dict": load_model(teacher_config, None).state_dict()}, tmp_path / "teacher.pth")
            teacher_config.dump(str(tmp_path / "teacher.py"))
            files = {"config": str(tmp_path / "teacher.py"), "checkpoint": str(tmp_path / "teacher.pth")}
            config.model.update(type="DistilledDetector", teacher=files, **distillation)
        torch.manual_seed(0)
        model: Any = MODELS.build(config.model)
        model.init_weights()
        return model

    return make


@pytest.fixture
def training_step() -> tuple[Any, list[Any]]:
    """Images (2, 3, 64, 96) and their samples: two boxes of class 0 in the first, one of class 1 in the second."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    truth = [([[8.0, 8.0, 40.0, 40.0], [50.0, 5.0, 90.0, 60.0]], [0, 0]), ([[20.0, 10.0, 76.0, 50.0]], [1])]
    samples = []
    for boxes, labels in truth:
        sample = DetDataSample(metainfo={"img_shape": (64, 96), "pad_shape": (64, 96), "batch_input_shape": (64, 96)})
        sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes), labels=torch.tensor(labels))
        samples.append(sample)
    return images, samples
