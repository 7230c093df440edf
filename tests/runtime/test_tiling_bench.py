"""Mosaics by hand, and the benchmark of tiles on rendered rectangles."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ld_runtime import Detector, tiling_bench
from ld_runtime.errors import DataError
from ld_runtime.tiling_bench import make_mosaic, measure_tiling


def test_a_mosaic_by_hand() -> None:
    images = [np.full((10, 20, 3), 10, np.uint8), np.full((30, 20, 3), 20, np.uint8), np.full((5, 5, 3), 30, np.uint8)]
    annotations = [[{"bbox": [2, 4, 6, 2], "category_id": 3}], [{"bbox": [0, 0, 20, 30], "category_id": 1}], []]
    mosaic = make_mosaic(images, annotations, hws=[(20, 40), (30, 20), (5, 5)], pad_value=(1, 2, 3), columns=2)
    assert mosaic.image.shape == (35, 60, 3)
    assert mosaic.places == ((0, 0, 40, 20), (40, 0, 20, 30), (0, 30, 5, 5))
    assert [one["bbox"] for one in mosaic.annotations] == [
        [4, 8, 12, 4],
        [40, 0, 20, 30],
    ]  # the first at twice its size
    assert [(one["area"], one["category_id"]) for one in mosaic.annotations] == [(48, 3), (600, 1)]
    for (x, y, w, h), value in zip(mosaic.places, (10, 20, 30), strict=True):
        assert (mosaic.image[y : y + h, x : x + w] == value).all()
    assert mosaic.image[25, 10].tolist() == mosaic.image[34, 59].tolist() == [1, 2, 3]


@pytest.fixture
def labelled(tmp_path: Path, rectangles) -> Path:
    """Nine images of 96 x 160; the middle one has a blue rectangle of 40 x 30, the others nothing."""
    (tmp_path / "images").mkdir()
    for index in range(9):
        image = rectangles((96, 160), blue=(60, 30, 100, 60)) if index == 4 else rectangles((96, 160))
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)
    content = {
        "images": [{"id": index, "file_name": f"{index}.png", "width": 160, "height": 96} for index in range(9)],
        "categories": [{"id": 11 + index, "name": name} for index, name in enumerate(("blue", "green", "red"))],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 11, "bbox": [60, 30, 40, 30], "area": 1200, "iscrowd": 0}
        ],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_the_benchmark(labelled: Path, model_file, capsys) -> None:
    output = labelled.parent / "tiling.json"
    given = [model_file(), "--images", labelled.parent / "images", "--annotations", labelled, "--side", 3, "-o", output]
    tiling_bench.main(list(map(str, given)))
    content = json.loads(output.read_text(encoding="utf-8"))
    assert (content["kind"], content["schema_version"], content["mosaics"]) == ("ld_deploy.tiling", 1, 1)
    assert (content["objects"], content["largest_object_px"], content["tile_hw"]) == (1, 40, [96, 160])
    ways = {one["name"]: one for one in content["ways"]}
    names = ["images one by one", "whole", *(f"overlap {share}" for share in ("0", "0.1", "0.2", "0.3", "0.5"))]
    assert list(ways) == [*names, "largest 40"]
    # A canvas of 288 x 480: without overlap the tiles are the images, with 44 pixels 5 by 4 of them.
    assert (ways["overlap 0"]["tiles"], ways["largest 40"]["tiles"], ways["whole"]["tiles"]) == (9, 20, 1)
    assert [ways[name]["holds_px"] for name in ("whole", "overlap 0.2", "largest 40")] == [None, 16, 40]
    for name in ("images one by one", "overlap 0", "largest 40"):
        assert ways[name]["ap"] == pytest.approx(1)
    assert all(one["median_ms"] > 0 for one in ways.values())
    assert capsys.readouterr().out.count(" runs ") == len(ways)


def test_too_few_images_and_unknown_classes(labelled: Path, model_file) -> None:
    folder = labelled.parent / "images"
    with pytest.raises(DataError, match="has 9 images, a mosaic takes 16"):
        measure_tiling(Detector(model_file()), annotations=labelled, images=folder)
    other = Detector(model_file(name="o.onnx", class_names=("blue", "green", "rad")))
    with pytest.raises(DataError, match=r"no category \['rad'\]"):
        measure_tiling(other, annotations=labelled, images=folder, side=3)
    content = json.loads(labelled.read_text(encoding="utf-8"))
    labelled.write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    with pytest.raises(DataError, match="AP of nothing says nothing"):
        measure_tiling(Detector(model_file()), annotations=labelled, images=folder, side=3)
