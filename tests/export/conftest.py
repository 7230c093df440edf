"""One small detector with random weights, spread so that it detects plenty, exported once for all tests here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = ("ant", "bee", "cat")
SIZES = ((100, 140), (131, 97), (64, 200), (160, 160), (90, 121), (200, 75))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six textured images of odd sizes; their boxes are written by `checkpoint`."""
    root = tmp_path_factory.mktemp("textures")
    rng = np.random.default_rng(4)
    for index, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 255, (-(-height // 12), -(-width // 12), 3), dtype=np.uint8)
        cv2.imwrite(str(root / f"{index}.png"), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
    return root


@pytest.fixture(scope="session")
def config_file(data_root: Path) -> Path:
    text = f"""
_base_ = {str(CONFIGS / "gfl" / "gfl_r18_fpn_coco_1x.py")!r}
model = dict(
    backbone=dict(base_channels=8, stem_channels=8, init_cfg=None),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=32),
    bbox_head=dict(num_classes=3, in_channels=32, feat_channels=32, stacked_convs=1),
    test_cfg=dict(nms_pre=300, pre_nms_top_k=400, score_thr=0.05, max_per_img=30))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(224, 160), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(
    batch_size=1, num_workers=0, persistent_workers=False,
    dataset=dict(
        data_root={str(data_root) + "/"!r}, metainfo=dict(classes={CLASSES!r}), ann_file='truth.json',
        data_prefix=dict(img=''), pipeline=pipeline))
val_dataloader = test_dataloader
"""
    path = data_root / "small.py"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def model(config_file: Path) -> Any:
    from ld_deploy import compat

    compat.install()
    import torch

    from ld_deploy.checkpoint import load_model

    torch.manual_seed(3)
    detector = load_model(config_file, None)
    with torch.no_grad():
        detector.bbox_head.gfl_cls.weight.normal_(0, 0.12)
        detector.bbox_head.gfl_cls.bias.fill_(-2.0)
        detector.bbox_head.gfl_reg.weight.normal_(0, 0.4)
    return detector


@pytest.fixture(scope="session")
def checkpoint(model: Any, config_file: Path, data_root: Path) -> Path:
    """The weights, and beside them a ground truth that they partly agree with: most detections, some shifted."""
    import torch
    from mmdet.apis import inference_detector
    from mmengine.config import Config
    from mmengine.dataset import Compose

    path = data_root / "small.pth"
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": {"classes": CLASSES}}}, path)
    model.cfg = Config.fromfile(config_file)  # inference_detector reads its test pipeline
    pipeline = model.cfg.pipeline
    steps = Compose([step for step in pipeline if step["type"] != "LoadAnnotations"])
    rng = np.random.default_rng(5)
    annotations: list[dict[str, Any]] = []
    for index in range(len(SIZES)):
        found = inference_detector(model, str(data_root / f"{index}.png"), test_pipeline=steps).pred_instances
        for box, label in list(zip(found.bboxes.tolist(), found.labels.tolist(), strict=True))[::2]:
            x, y = box[0] + rng.normal(0, 2), box[1] + rng.normal(0, 2)
            width, height = box[2] - box[0], box[3] - box[1]
            row = {"image_id": index, "category_id": label + 1, "bbox": [x, y, width, height], "area": width * height}
            annotations.append({"id": len(annotations) + 1, "iscrowd": 0, **row})
    images = [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in enumerate(SIZES)]
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    (data_root / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def student(config_file: Path, checkpoint: Path, data_root: Path) -> Path:
    """The exported file: any batch, height and width."""
    from ld_export.from_checkpoint import export_checkpoint

    path = data_root / "student.onnx"
    export_checkpoint(config_file, checkpoint=checkpoint, output=path)
    return path


@pytest.fixture(scope="session")
def candidates_file(config_file: Path, checkpoint: Path, data_root: Path) -> Path:
    """The same without NMS and with a fixed canvas."""
    from ld_export.from_checkpoint import export_checkpoint

    path = data_root / "candidates.onnx"
    export_checkpoint(config_file, checkpoint=checkpoint, output=path, input_hw=(160, 192), nms_kind="none")
    return path


@pytest.fixture(scope="session")
def int8_file(student: Path) -> Path:
    """Quantized with scales that are not of images: what a parser and a builder see is the same."""
    from dataclasses import replace

    from ld_export import deployed_file
    from ld_export.quantize_graph import insert_quantization
    from ld_export.quantize_plan import make_plan

    model, card = deployed_file.read(student)
    trunk, tail = deployed_file.split(model)
    plan = make_plan(trunk.graph)
    network = insert_quantization(trunk, plan=plan, scales=dict.fromkeys(set(plan.group_of.values()), 0.05))
    path = student.with_name("student.int8.onnx")
    deployed_file.write(deployed_file.join(network, tail), path, card=replace(card, precision="int8"))
    return path
