from __future__ import annotations

import ld_deploy

# isort: split
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

import ld_deploy.models  # noqa: F401 - registers the metric
from ld_deploy.ap import ap_of
from ld_deploy.rotated.annotations import read_dota
from ld_deploy.rotated.box_type import RotatedBoxes
from ld_deploy.rotated.split import share_inside, split_dota, tile_name, tile_of_name
from ld_runtime.errors import ConfigError, DataError
from ld_runtime.rotated_tiles import Tile

BOX = [50.0, 50, 40, 20, 0.4]
FAR = [300.0, 300, 40, 20, 1.0]


def sample(found: list[Any], true: list[Any], ignored: list[Any]) -> dict[str, Any]:
    def instances(boxes: list[Any], **more: Any) -> InstanceData:
        return InstanceData(labels=torch.zeros(len(boxes), dtype=torch.long), **more)

    result = DetDataSample()
    boxes = torch.tensor(found).reshape(-1, 5)
    result.pred_instances = instances(found, bboxes=boxes, scores=torch.linspace(0.9, 0.5, len(found)))
    result.gt_instances = instances(true, bboxes=torch.tensor(true).reshape(-1, 5))
    result.ignored_instances = instances(ignored, bboxes=RotatedBoxes(torch.tensor(ignored).reshape(-1, 5)))
    plain: dict[str, Any] = result.to_dict()
    return plain


def test_metric() -> None:
    metric = METRICS.build({"type": "DOTAMetric", "mode": "area", "classwise": True})
    metric.dataset_meta = {"classes": ("ship", "plane")}
    metric.process({}, [sample([FAR, BOX], [BOX], [FAR]), sample([], [BOX], [])])
    metric.process({}, [sample([FAR], [], [])])
    values = metric.evaluate(3)
    # FAR is found right beside a difficult one and wrong in the third image; BOX at score 0.5 is right, one is missed.
    assert values["dota/AP50"] == values["dota/AP"] == pytest.approx(0.5 * 0.5)
    assert values["dota/AP95"] == values["dota/AP_ship"] == values["dota/AP50_ship"] == pytest.approx(0.25)
    assert "dota/AP_plane" not in values
    assert ap_of(values) == {"ap": pytest.approx(0.25), "ap50": pytest.approx(0.25), "ap75": pytest.approx(0.25)}


def test_metric_refuses() -> None:
    with pytest.raises(ConfigError, match="11points or area"):
        METRICS.build({"type": "DOTAMetric", "mode": "coco"})
    metric = METRICS.build({"type": "DOTAMetric"})
    broken = sample([BOX], [BOX], [])
    broken["gt_instances"]["bboxes"] = torch.zeros(1, 4)
    with pytest.raises(DataError, match="five numbers"):
        metric.process({}, [broken])
    del broken["gt_instances"]
    with pytest.raises(DataError, match="no truth"):
        metric.process({}, [broken])


def test_share_inside_by_hand() -> None:
    tile = Tile(100, 200, 50, 50)
    square = np.array([[90.0, 210], [110, 210], [110, 230], [90, 230]])
    assert share_inside(square, tile) == pytest.approx(0.5)
    assert share_inside(square[::-1], tile) == pytest.approx(0.5)
    assert share_inside(square + np.array([10, 0]), tile) == pytest.approx(1)
    assert share_inside(square - [10, 0], tile) == pytest.approx(0)
    assert share_inside(square * [1, 0], tile) == 0
    # A diamond around a corner of the tile: a quarter of it.
    diamond = np.array([[100.0, 190], [110, 200], [100, 210], [90, 200]])
    assert share_inside(diamond, tile) == pytest.approx(0.25)


def test_split(tmp_path: Path) -> None:
    images, labels, out = tmp_path / "images", tmp_path / "labelTxt", tmp_path / "out"
    images.mkdir()
    labels.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (60, 100, 3), dtype=np.uint8)
    cv2.imwrite(str(images / "P__1.png"), picture)
    (labels / "P__1.txt").write_text(
        "gsd:1\n10 10 30 10 30 20 10 20 ship 0\n45 30 55 30 55 40 45 40 ship 1\n36 5 46 5 46 9 36 9 ship 0\n",
        encoding="utf-8",
    )
    summary = split_dota(images, labels, out, size=60, overlap=20)
    # 0.6 of the last object lies in the right tile: it is in the left one only.
    assert (summary.images, summary.tiles, summary.empty_tiles, summary.lost_objects) == (1, 2, 0, 0)
    names = sorted(path.stem for path in (out / "images").iterdir())
    assert names == ["P__1__0_0", "P__1__40_0"]
    assert tile_of_name(names[1]) == ("P__1", 40, 0)
    np.testing.assert_array_equal(cv2.imread(str(out / "images" / "P__1__40_0.png")), picture[:, 40:])
    left, right = (read_dota(out / "labelTxt" / f"{name}.txt") for name in names)
    assert len(left) == 3
    assert [(each.difficult, each.polygon[0].tolist()) for each in right] == [(True, [5, 30])]
    # Without overlap only the second lies whole in one tile.
    strict = split_dota(images, labels, tmp_path / "strict", size=20, overlap=0, min_share=1.0)
    assert (strict.tiles, strict.lost_objects) == (15, 2)
    (labels / "P__1.txt").unlink()
    with pytest.raises(DataError, match="the first is P__1"):
        split_dota(images, labels, out)


@pytest.mark.parametrize("name", ["P1", "P1__3", "P1__a_3", "__1_2", "P1__-1_2"])
def test_names_that_are_no_tiles(name: str) -> None:
    with pytest.raises(DataError, match="NAME__X_Y"):
        tile_of_name(name)
    assert tile_of_name(tile_name("P1", Tile(7, 8, 1, 1))) == ("P1", 7, 8)
