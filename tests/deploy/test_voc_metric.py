"""AP by VOC's protocol: numbers to check by hand, the published code's, and data sets in VOC's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.hooks import CheckpointHook
from mmengine.structures import InstanceData

from ld_deploy.config import load_config
from ld_deploy.models import VOCRangeMetric
from ld_deploy.train import evaluate, train
from ld_runtime.errors import ConfigError, DataError

CONFIG = Path(__file__).parents[2] / "configs" / "_base_" / "voc0712.py"
ORACLE = Path(__file__).parents[1] / "oracles" / "voc_eval.npz"
PERCENTS = range(50, 100, 5)

Rows = list[tuple[float, ...]]


def array(rows: Any, columns: int) -> np.ndarray:
    return np.array(rows, dtype=np.float32).reshape(-1, columns)


def image(truth: Rows, found: Rows, *, ignored: Rows = (), classes: int = 1) -> tuple[dict[str, Any], list[np.ndarray]]:
    """What the metric keeps of an image: boxes are (label, x1, y1, x2, y2), detections have their score at the end."""
    boxes, left_out, detections = array(truth, 5), array(ignored, 5), array(found, 6)
    annotation = {
        "labels": boxes[:, 0].astype(int),
        "bboxes": boxes[:, 1:],
        "labels_ignore": left_out[:, 0].astype(int),
        "bboxes_ignore": left_out[:, 1:],
    }
    return annotation, [detections[detections[:, 0] == label, 1:] for label in range(classes)]


def metrics_of(*images: Any, classes: tuple[str, ...] = ("cell",), **settings: Any) -> dict[str, float]:
    metric = VOCRangeMetric(**settings)
    metric.dataset_meta = {"classes": classes}
    metric.results = list(images)
    found: dict[str, float] = metric.evaluate(size=len(images))
    return found


FAR = (0, 200, 200, 240, 240)
NEAR = (0, 0, 0, 40, 40)


@pytest.mark.parametrize(("mode", "ap"), [("11points", 6 / 11), ("area", 1 / 2)])
def test_one_of_two_boxes_found_before_a_wrong_one(mode: str, ap: float) -> None:
    """Precision is 1 up to recall 0.5: of the eleven points 0, 0.1 ... 1, six are reached."""
    found = metrics_of(image([NEAR, FAR], [(*NEAR, 0.9), (0, 90, 90, 99, 99, 0.8)]), eval_mode=mode)
    assert found == pytest.approx({"pascal_voc/AP": ap, **{f"pascal_voc/AP{p}": ap for p in PERCENTS}})
    assert next(iter(found)) == "pascal_voc/AP"


def test_second_detection_of_a_box_is_wrong() -> None:
    """Right, wrong, right: half the recall at precision 1, the other half at 2/3."""
    one = image([NEAR, FAR], [(*NEAR, 0.9), (*NEAR, 0.8), (*FAR, 0.7)])
    assert metrics_of(one, eval_mode="area")["pascal_voc/AP50"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_scores_are_ranked_over_all_images() -> None:
    """The wrong detection of the second image comes first: precision 1/2 at recall 1."""
    first, second = image([NEAR], [(*NEAR, 0.5)]), image([], [(*FAR, 0.6)])
    assert metrics_of(first, second, eval_mode="area")["pascal_voc/AP"] == pytest.approx(1 / 2)


def test_boxes_have_no_legacy_pixel_more() -> None:
    """10x10 against 10x4.9: IoU 0.49; with a pixel more a side it would be 0.536."""
    assert metrics_of(image([(0, 0, 0, 10, 10)], [(0, 0, 0, 10, 4.9, 0.9)]))["pascal_voc/AP50"] == 0


@pytest.mark.parametrize("percent", PERCENTS)
def test_every_threshold_is_exact(percent: int) -> None:
    """An IoU of exactly the threshold counts, one just below does not."""
    square = (0, 0, 0, 100, 100)
    at = metrics_of(image([square], [(0, 0, 0, 100, percent, 0.9)]))
    below = metrics_of(image([square], [(0, 0, 0, 100, percent - 0.001, 0.9)]))
    assert [at[f"pascal_voc/AP{p}"] for p in PERCENTS] == [p <= percent for p in PERCENTS]
    assert [below[f"pascal_voc/AP{p}"] for p in PERCENTS] == [p < percent for p in PERCENTS]
    assert at["pascal_voc/AP"] == pytest.approx((percent - 45) / 50)


def test_difficult_box_is_neither_found_nor_missed() -> None:
    """Two detections of it come before the right one, and count neither way."""
    found = [(*FAR, 0.9), (*FAR, 0.85), (*NEAR, 0.8)]
    assert metrics_of(image([NEAR], found, ignored=[FAR]), eval_mode="area")["pascal_voc/AP"] == 1
    assert metrics_of(image([NEAR], found), eval_mode="area")["pascal_voc/AP"] == pytest.approx(1 / 3)
    assert metrics_of(image([NEAR], [(*NEAR, 0.8)], ignored=[FAR]))["pascal_voc/AP"] == 1
    other_class = image([NEAR], found, ignored=[(1, *FAR[1:])], classes=2)
    assert metrics_of(other_class, classes=("a", "b"), eval_mode="area")["pascal_voc/AP"] == pytest.approx(1 / 3)


def test_classes_with_and_without_boxes() -> None:
    """The first is found, the second missed, the third has no box: the mean is over two."""
    one = image([NEAR, (1, *FAR[1:])], [(*NEAR, 0.9), (2, *FAR[1:], 0.9)], classes=3)
    found = metrics_of(one, classes=("a", "b", "c"), classwise=True)
    assert found["pascal_voc/AP"] == found["pascal_voc/AP50"] == found["pascal_voc/AP75"] == 0.5
    per_class = {key.removeprefix("pascal_voc/"): value for key, value in found.items() if "_a" in key or "_b" in key}
    assert per_class["AP_a"] == per_class["AP50_a"] == 1
    assert per_class["AP_b"] == per_class["AP50_b"] == 0
    assert "pascal_voc/AP_c" not in found


def test_no_detections_no_boxes_and_no_images() -> None:
    assert metrics_of(image([NEAR], []))["pascal_voc/AP"] == 0
    assert metrics_of(image([], [(*NEAR, 0.9)]))["pascal_voc/AP"] == 0
    with pytest.raises(DataError, match="no image was evaluated"):
        VOCRangeMetric().compute_metrics([])


def test_unknown_mode() -> None:
    with pytest.raises(ConfigError, match="must be one of 11points, area, got 'voc07'"):
        VOCRangeMetric(eval_mode="voc07")


@pytest.mark.parametrize("mode", ["11points", "area"])
def test_agrees_with_the_published_code(mode: str) -> None:
    with np.load(ORACLE) as oracle:
        truth, detections, wanted = oracle["truth"], oracle["detections"], oracle[f"ap_{mode}"]
    images = []
    for index in range(40):
        mine, ignored = truth[truth[:, 0] == index], truth[truth[:, 0] == index, 2] == 1
        boxes = np.delete(mine, (0, 2), axis=1)
        found = detections[detections[:, 0] == index, 1:]
        images.append(image(boxes[~ignored], found, ignored=boxes[ignored], classes=5))
    got = metrics_of(*images, classes=tuple("abcde"), eval_mode=mode)
    np.testing.assert_allclose([got[f"pascal_voc/AP{p}"] for p in PERCENTS], wanted, atol=1e-6)
    assert got["pascal_voc/AP"] == pytest.approx(wanted.mean(), abs=1e-6)


def write_voc(root: Path, split: str, images: dict[str, tuple[np.ndarray, list[tuple[Any, ...]]]]) -> None:
    """A folder in VOC's format; boxes are (name, difficult, x1, y1, x2, y2), 0-based."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, (pixels, boxes) in images.items():
        cv2.imwrite(str(root / "JPEGImages" / f"{name}.jpg"), pixels)
        annotation = ET.Element("annotation")
        ET.SubElement(annotation, "filename").text = f"{name}.jpg"
        size = ET.SubElement(annotation, "size")
        for key, value in zip(("height", "width", "depth"), pixels.shape, strict=True):
            ET.SubElement(size, key).text = str(value)
        for label, difficult, *box in boxes:
            item = ET.SubElement(annotation, "object")
            ET.SubElement(item, "name").text = label
            ET.SubElement(item, "difficult").text = str(difficult)
            sides = ET.SubElement(item, "bndbox")
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
                ET.SubElement(sides, key).text = str(value + 1)
        ET.ElementTree(annotation).write(root / "Annotations" / f"{name}.xml")
    (root / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(images), encoding="utf-8")


BOXES = [("cat", 0, 100, 50, 300, 250), ("dog", 0, 10, 10, 30, 30), ("cat", 1, 350, 20, 480, 200)]


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOC2007 with one image in trainval and two in test, VOC2012 with two in trainval."""
    root = tmp_path_factory.mktemp("VOCdevkit")
    pixels = np.full((400, 500, 3), 90, np.uint8)
    write_voc(root / "VOC2007", "trainval", {"a": (pixels, BOXES)})
    write_voc(root / "VOC2007", "test", {"b": (pixels, BOXES), "c": (pixels, [])})
    write_voc(root / "VOC2012", "trainval", {"d": (pixels, BOXES[:1]), "e": (pixels, BOXES[1:])})
    return root


def voc_config(devkit: Path) -> Config:
    config = load_config(CONFIG)
    repeated = config.train_dataloader.dataset.dataset
    for dataset in (*repeated.datasets, config.val_dataloader.dataset, config.test_dataloader.dataset):
        dataset.data_root = str(devkit)
    return config


def test_published_voc_schedule(devkit: Path) -> None:
    config = voc_config(devkit)
    data: Any = DATASETS.build(config.train_dataloader.dataset)
    assert len(data) == 3 * (1 + 2)  # each of both years three times
    names = [Path(data.get_data_info(index)["img_path"]).parts[-3:] for index in range(3)]
    assert [(year, name) for year, _, name in names] == [
        ("VOC2007", "a.jpg"),
        ("VOC2012", "d.jpg"),
        ("VOC2012", "e.jpg"),
    ]
    assert len(data.metainfo["classes"]) == config.model.bbox_head.num_classes == 20
    sample = data[0]["data_samples"]
    assert sample.img_shape == (800, 1000)  # 400x500 in 1333x800
    # The 20 px box is a target, the difficult one is not.
    assert (len(sample.gt_instances), len(sample.ignored_instances)) == (2, 1)
    assert config.train_cfg.max_epochs == 4
    assert config.param_scheduler[1].milestones == [3]
    assert (config.optim_wrapper.optimizer.lr, config.auto_scale_lr.base_batch_size) == (0.01, 16)
    assert config.auto_scale_lr.enable
    hook = CheckpointHook(**{key: value for key, value in config.default_hooks.checkpoint.items() if key != "type"})
    assert (hook.key_indicators, hook.rules) == (["pascal_voc/AP"], ["greater"])


@pytest.mark.parametrize("kind", ["VOCDataset", "VOCFormatDataset"])
def test_data_sets_in_voc_format(devkit: Path, kind: str) -> None:
    """Detections that are the usable boxes, and one on the difficult box: AP 1. Half a box lower: IoU 1/3."""
    config = voc_config(devkit)
    dataset = {**config.test_dataloader.dataset, "type": kind}
    if kind == "VOCFormatDataset":
        dataset["metainfo"] = {"classes": ("cat", "dog")}
    data: Any = DATASETS.build(dataset)
    evaluator = Evaluator(config.test_evaluator)
    evaluator.dataset_meta = data.metainfo
    classes = data.metainfo["classes"]

    def score(move: float) -> dict[str, float]:
        for sample in (data[index]["data_samples"] for index in range(len(data))):
            usable = bool(len(sample.gt_instances))
            boxes = torch.tensor([box for _, _, *box in BOXES], dtype=torch.float32)[: 3 * usable]
            labels = torch.tensor([classes.index(name) for name, *_ in BOXES])[: 3 * usable]
            moved = boxes.clone()
            moved[:, 1::2] += move * (boxes[:, 3:] - boxes[:, 1:2])
            scores = torch.tensor([0.6, 0.7, 0.9])[: 3 * usable]
            sample.pred_instances = InstanceData(bboxes=moved, labels=labels, scores=scores)
            sample.gt_instances.bboxes = sample.gt_instances.bboxes.tensor  # as the detector does
            sample.ignored_instances.bboxes = sample.ignored_instances.bboxes.tensor
            evaluator.process([sample])
        found: dict[str, float] = evaluator.evaluate(len(data))
        return found

    assert score(0)["pascal_voc/AP"] == pytest.approx(1)
    assert score(0.5)["pascal_voc/AP50"] == 0


def test_training_chooses_its_best_checkpoint_by_it(tiny_config: Path, tmp_path: Path) -> None:
    pixels = np.full((64, 96, 3), 30, np.uint8)
    pixels[10:40, 20:50] = 200
    write_voc(tmp_path / "data", "all", {name: (pixels, [("cat", 0, 20, 10, 50, 40)]) for name in "abcd"})
    config = load_config(tiny_config).copy()
    config.model.bbox_head.num_classes = 1
    split = {
        "type": "VOCFormatDataset",
        "data_root": str(tmp_path / "data"),
        "ann_file": "ImageSets/Main/all.txt",
        "data_prefix": {"sub_data_root": ""},
        "metainfo": {"classes": ("cat",)},
        "pipeline": config.train_dataloader.dataset.pipeline,
    }
    for name in ("train", "val", "test"):
        config[f"{name}_dataloader"].dataset = {**split, "test_mode": name != "train"}
    config.val_evaluator = config.test_evaluator = {"type": "VOCRangeMetric", "classwise": True}
    config.default_hooks.checkpoint.update(save_best="pascal_voc/AP", rule="greater")
    best = train(config, work_dir=tmp_path / "work", overrides={"log_level": "ERROR"})
    assert best.resolve().name == "best_pascal_voc_AP_epoch_1.pth"
    found = evaluate(config, best, work_dir=tmp_path / "eval", overrides={"log_level": "ERROR"})
    assert set(found) == {f"pascal_voc/AP{end}" for end in ("", *PERCENTS, "_cat", "50_cat")}
