"""The rendered data set: what its boxes mean, that it is the same every time, and what is in it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ld_deploy.demo.scenes import CLASSES, TEXTURES, polygon_mask, shape_mask, texture, visible_objects
from ld_deploy.demo.shapes import SPLITS, RenderSettings, render, scene_of
from ld_runtime.errors import DataError

SMALL = RenderSettings(seed=3, num_train=4, num_val=2, num_test=3, image_hw=(64, 80))
COMMON = RenderSettings(seed=0, num_train=1, num_val=1, num_test=1, image_hw=(128, 128))


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def changed(settings: RenderSettings, **changes: int) -> RenderSettings:
    return RenderSettings(**{**vars(settings), **changes})


def test_the_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert render(tmp_path / name, settings=SMALL)
    first = contents(tmp_path / "a")
    assert first == contents(tmp_path / "b")
    assert len(first) == 4 + 2 + 3 + 3 + 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]  # nothing temporary is left


def test_another_seed_gives_other_images() -> None:
    one, other = (scene_of(changed(COMMON, seed=seed), split="train", index=0) for seed in (0, 1))
    assert one.image.shape != other.image.shape or not np.array_equal(one.image, other.image)


def test_splits_and_indices_differ() -> None:
    scenes = [scene_of(COMMON, split=split, index=index) for split in SPLITS for index in range(3)]
    assert len({scene.image.tobytes() for scene in scenes}) == 9


def test_an_image_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    render(tmp_path / "few", settings=SMALL)
    render(tmp_path / "more", settings=changed(SMALL, num_train=6))
    few, more = contents(tmp_path / "few"), contents(tmp_path / "more")
    for name in (name for name in few if name.endswith(".png")):
        assert few[name] == more[name]


def test_a_second_call_renders_only_what_changed(tmp_path: Path) -> None:
    root = tmp_path / "data"
    assert render(root, settings=SMALL)
    stamp = (root / "manifest.json").stat().st_mtime_ns
    assert not render(root, settings=SMALL)
    assert (root / "manifest.json").stat().st_mtime_ns == stamp
    assert render(root, settings=changed(SMALL, num_val=1))
    assert len(list((root / "val").iterdir())) == 1


def test_another_renderer_renders_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "data"
    render(root, settings=SMALL)
    monkeypatch.setattr("ld_deploy.demo.scenes.RADIUS_SHARE", (0.09, 0.28))
    assert render(root, settings=SMALL)


def test_a_foreign_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"no rendered data set.*Name another folder"):
        render(tmp_path, settings=SMALL)
    assert contents(tmp_path) == {"holiday.png": b"mine"}


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot write the data set"):
        render(tmp_path / "file" / "data", settings=SMALL)


@pytest.mark.parametrize("changes", [{"num_train": 0}, {"num_val": 0}, {"num_test": 0}])
def test_an_empty_split_is_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(DataError, match="each split needs an image"):
        render(tmp_path / "data", settings=changed(SMALL, **changes))


def test_annotations_are_a_coco_data_set(tmp_path: Path) -> None:
    render(tmp_path / "data", settings=SMALL)
    for split, count in zip(SPLITS, (4, 2, 3), strict=True):
        path = tmp_path / "data" / "annotations" / f"instances_{split}.json"
        document = json.loads(path.read_text())
        assert tuple(category["name"] for category in document["categories"]) == CLASSES
        coco = COCO()
        coco.dataset = document
        coco.createIndex()
        assert len(coco.imgs) == count
        assert len(coco.anns) == len(document["annotations"])  # no id twice
        for record in document["images"]:
            image = cv2.imread(str(tmp_path / "data" / split / record["file_name"]))
            assert image.shape == (record["height"], record["width"], 3)
            for one in coco.imgToAnns[record["id"]]:
                x, y, width, height = one["bbox"]
                assert width >= 1
                assert height >= 1
                assert x >= 0
                assert y >= 0
                assert x + width <= record["width"]
                assert y + height <= record["height"]
                assert one["area"] == width * height


def test_a_box_is_the_extent_of_what_can_be_seen() -> None:
    owner = np.zeros((20, 30), np.int16)
    owner[2:12, 3:13] = 1  # 100 pixels, x 3..12, y 2..11
    owner[2:12, 9:19] = 2  # over its right 4 columns
    first, second = visible_objects(owner, labels=[5, 0], areas=[100, 100])
    assert (first.label, first.box, first.mostly_hidden) == (5, (3, 2, 9, 12), False)
    assert (second.label, second.box, second.mostly_hidden) == (0, (9, 2, 19, 12), False)


@pytest.mark.parametrize(
    ("pixels", "area", "found"),
    [
        (35, 100, "wanted"),  # exactly the share
        (34, 100, "hidden"),
        (16, 200, "hidden"),  # exactly 8 %
        (15, 200, "none"),
        (12, 20, "wanted"),  # exactly the fewest pixels
        (11, 20, "none"),
        (0, 50, "none"),
    ],
)
def test_how_much_must_be_seen(pixels: int, area: int, found: str) -> None:
    owner = np.zeros((10, 40), np.int16)
    owner.flat[:pixels] = 1
    objects = visible_objects(owner, labels=[0], areas=[area])
    assert [one.mostly_hidden for one in objects] == {"wanted": [False], "hidden": [True], "none": []}[found]


def test_no_shape_no_object() -> None:
    assert visible_objects(np.zeros((4, 4), np.int16), labels=[], areas=[]) == ()


def test_the_set_holds_what_it_promises() -> None:
    """Empty images, hidden objects, every class, and sizes that are not the common one nor multiples of 32."""
    scenes = [scene_of(COMMON, split="test", index=index) for index in range(120)]
    objects = [one for scene in scenes for one in scene.objects]
    assert 1 <= sum(not scene.objects for scene in scenes) <= 20
    assert 1 <= sum(one.mostly_hidden for one in objects) < len(objects) / 5
    assert {one.label for one in objects} == set(range(len(CLASSES)))
    sizes = [scene.image.shape[:2] for scene in scenes]
    other = [size for size in sizes if size != (128, 128)]
    assert 60 <= len(other) <= 110
    assert not any(side % 32 == 0 for size in other for side in size)
    assert any(height > width for height, width in other)
    assert any(height < width for height, width in other)


def test_a_polygon_covers_its_pixels() -> None:
    mask = polygon_mask(np.array([[3.0, 2.0], [9.0, 2.0], [9.0, 7.0], [3.0, 7.0]]), hw=(12, 16))
    rows, columns = np.nonzero(mask > 127)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 7, 3, 9)


def test_outlines_differ() -> None:
    masks = {
        name: shape_mask(
            name, centre=np.array([40.0, 40.0]), radius=30.0, angle=0.3, rng=np.random.default_rng(0), hw=(80, 80)
        )
        for name in ("disc", "ring", "square", "star", "dotted_triangle")
    }
    area = {name: int(np.count_nonzero(mask > 127)) for name, mask in masks.items()}
    assert masks["ring"][40, 40] == 0
    assert masks["disc"][40, 40] == 255
    assert area["disc"] > area["square"] > area["dotted_triangle"] > 0
    assert area["disc"] > area["star"] > 0
    assert area["disc"] > area["ring"] > 0


def test_patterns_stand_out_from_a_plain_fill() -> None:
    canvas = np.full((64, 64, 3), 120, np.float32)
    mask = np.full((64, 64), 255, np.uint8)
    spread = {
        kind: float(texture(np.random.default_rng(1), canvas, mask, kind=kind).std(axis=(0, 1)).mean())
        for kind in ("plain", *TEXTURES)
    }
    assert spread["plain"] < 12
    assert all(spread[kind] > 15 for kind in TEXTURES)
