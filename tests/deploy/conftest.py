from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

if TYPE_CHECKING:
    from collections.abc import Iterator


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
