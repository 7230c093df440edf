from __future__ import annotations

import ld_deploy

# isort: split

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS

import ld_deploy.models  # noqa: F401 - registers the data sets
from ld_deploy.data_check import check_dataset
from ld_deploy.rotated.annotations import read_coco, read_dota, read_hrsc
from ld_deploy.rotated.boxes import corners
from ld_runtime.errors import DataError

SSDD = Path(__file__).parents[4] / "shared" / "data" / "ssdd"
needs_ssdd = pytest.mark.skipif(not SSDD.is_dir(), reason="SSDD is not beside the checkout")
CLASSES = {"classes": ("ship", "plane")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images a to d, of which c has no object and d has the bytes of a; 40 x 60 pixels."""
    images, labels = tmp_path / "images", tmp_path / "labelTxt"
    images.mkdir()
    labels.mkdir()
    for index, stem in enumerate("abc"):
        cv2.imwrite(str(images / f"{stem}.png"), np.full((40, 60, 3), index, dtype=np.uint8))
    (images / "d.png").write_bytes((images / "a.png").read_bytes())
    (labels / "a.txt").write_text(
        "imagesource:GoogleEarth\ngsd:0.15\n# a comment\n\n"
        "10 10 30 10 30 20 10 20 ship 0\n5.5 5 9 5 9 8 5.5 8 plane 1\n",
        encoding="utf-8",
    )
    (labels / "b.txt").write_text("0 0 10 10 5 15 -5 5 plane\n1 1 20 1 20 1.5 1 1.5 ship 0\n", encoding="utf-8")
    (labels / "c.txt").write_text("", encoding="utf-8")
    (labels / "d.txt").write_text("1 1 9 1 9 9 1 9 ship 2\n", encoding="utf-8")
    return tmp_path


def build(folder: Path, **changes: Any) -> Any:
    settings = {
        "type": "DOTAFormatDataset",
        "data_root": str(folder),
        "ann_file": "labelTxt",
        "data_prefix": {"img": "images"},
        "metainfo": CLASSES,
        "pipeline": [],
    }
    return DATASETS.build(settings | changes)


def names(dataset: Any) -> list[str]:
    return [Path(dataset.get_data_info(i)["img_path"]).stem for i in range(len(dataset))]


def test_dota_records(folder: Path) -> None:
    dataset = build(folder)
    assert names(dataset) == ["a", "b", "c", "d"]
    first = dataset.get_data_info(0)
    assert (first["height"], first["width"], first["img_id"]) == (40, 60, 0)
    ship, plane = first["instances"]
    assert ship["bbox"][:2] == [20, 15]
    assert sorted(ship["bbox"][2:4]) == [10, 20]
    assert (ship["bbox_label"], ship["ignore_flag"]) == (0, 0)
    assert (plane["bbox_label"], plane["ignore_flag"]) == (1, 1)
    (tilted,) = dataset.get_data_info(1)["instances"]
    points = corners(torch.tensor([tilted["bbox"]]))[0]
    expected = [[-5.0, 5], [0, 0], [5, 15], [10, 10]]
    np.testing.assert_allclose(sorted(points.tolist()), expected, atol=1e-4)
    assert dataset.degenerate_boxes == 1
    assert dataset.get_data_info(2)["instances"] == []
    summary = check_dataset([dataset.get_data_info(i) for i in range(4)], classes=CLASSES["classes"], name="train")
    assert summary.boxes_per_class == {"ship": 2, "plane": 2}
    assert summary.empty_images == 1


def test_empty_images_difficult_objects_and_copies(folder: Path) -> None:
    # d has a difficult object only: without difficult ones it is empty too.
    assert names(build(folder, filter_cfg={"filter_empty_gt": True})) == ["a", "b"]
    kept = build(folder, filter_cfg={"filter_empty_gt": True}, difficult="keep")
    assert names(kept) == ["a", "b", "d"]
    assert not any(each["ignore_flag"] for i in range(3) for each in kept.get_data_info(i)["instances"])
    assert names(build(folder, filter_cfg={"filter_empty_gt": True}, test_mode=True)) == ["a", "b", "c", "d"]
    unique = build(folder, unique=True)
    assert (names(unique), unique.copies) == (["a", "b", "c"], 1)
    (folder / "test").mkdir()
    (folder / "test" / "z.png").write_bytes((folder / "images" / "d.png").read_bytes())
    apart = build(folder, leave_out=["test"])
    assert (names(apart), apart.copies) == (["b", "c"], 2)


def test_split_file_and_images_without_annotations(folder: Path) -> None:
    (folder / "val.txt").write_text("c\na\n", encoding="utf-8")
    assert names(build(folder, split="val.txt")) == ["c", "a"]
    bare = build(folder, ann_file="")
    assert [bare.get_data_info(i)["instances"] for i in range(4)] == [[]] * 4
    (folder / "val.txt").write_text("c\nnone\n", encoding="utf-8")
    with pytest.raises(DataError, match="1 images that are not there, the first is none"):
        build(folder, split="val.txt")


def test_broken_lines_are_named_together(folder: Path) -> None:
    (folder / "labelTxt" / "a.txt").write_text("gsd:1\n1 2 3 4 5 6 7 ship 0\n", encoding="utf-8")
    (folder / "labelTxt" / "b.txt").write_text("1 2 3 4 5 6 7 x ship 0\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        build(folder)
    first, second = str(caught.value).splitlines()
    assert "a.txt, line 2: expected eight numbers" in first
    assert "b.txt, line 1" in second
    assert "'1 2 3 4 5 6 7 x ship 0'" in second


@pytest.mark.parametrize("line", ["1 2 3 4 5 6 7 8", "1 2 3 4 5 6 7 8 ship hard", "nan 2 3 4 5 6 7 8 ship 0", "a b"])
def test_lines_that_are_no_object(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.txt"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.txt, line 1"):
        read_dota(path)


def test_files_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(DataError, match=r"class 'plane', metainfo\.classes has ship"):
        build(folder, metainfo={"classes": ("ship",)})
    with pytest.raises(DataError, match="no folder"):
        build(folder, ann_file="nowhere")
    with pytest.raises(DataError, match="no folder"):
        build(folder, data_prefix={"img": "nowhere"})
    with pytest.raises(DataError, match="'ignore' or 'keep'"):
        build(folder, difficult="train")
    (folder / "labelTxt" / "e.txt").touch()
    with pytest.raises(DataError, match=r"1 files of .* have no image, the first is e"):
        build(folder)
    cv2.imwrite(str(folder / "images" / "e.png"), np.zeros((4, 4, 3), np.uint8))
    cv2.imwrite(str(folder / "images" / "f.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"1 images have no file in .*, the first is f"):
        build(folder)
    (folder / "labelTxt" / "f.txt").touch()
    (folder / "images" / "f.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"f\.png cannot be read"):
        build(folder)
    (folder / "images" / "a.jpg").touch()
    with pytest.raises(DataError, match="two images named a"):
        build(folder)


HRSC = """<HRSC_Image><Img_FileName>1</Img_FileName><HRSC_Objects>
<HRSC_Object><Class_ID>100000013</Class_ID><difficult>0</difficult>
<mbox_cx>30</mbox_cx><mbox_cy>20</mbox_cy><mbox_w>24</mbox_w><mbox_h>8</mbox_h><mbox_ang>0.5</mbox_ang></HRSC_Object>
<HRSC_Object><Class_ID>100000005</Class_ID><difficult>1</difficult>
<mbox_cx>10</mbox_cx><mbox_cy>10</mbox_cy><mbox_w>6</mbox_w><mbox_h>4</mbox_h><mbox_ang>-1</mbox_ang></HRSC_Object>
</HRSC_Objects></HRSC_Image>"""


def test_hrsc(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "1.bmp"), np.zeros((40, 60, 3), np.uint8))
    (tmp_path / "1.xml").write_text(HRSC, encoding="utf-8")
    settings = {"type": "HRSCDataset", "ann_file": str(tmp_path), "data_prefix": {"img": str(tmp_path)}}
    dataset = DATASETS.build(settings | {"metainfo": {"classes": ("ship",)}, "pipeline": []})
    ship, hard = dataset.get_data_info(0)["instances"]
    expected = corners(torch.tensor([[30.0, 20, 24, 8, 0.5]]))[0]
    found = corners(torch.tensor([ship["bbox"]]))[0]
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected.tolist()), atol=1e-4)
    assert (ship["ignore_flag"], hard["ignore_flag"]) == (0, 1)
    assert [each.name for each in read_hrsc(tmp_path / "1.xml")] == ["100000013", "100000005"]
    (tmp_path / "1.xml").write_text(HRSC.replace("<mbox_w>6</mbox_w>", ""), encoding="utf-8")
    with pytest.raises(DataError, match=r"1\.xml, object 2"):
        read_hrsc(tmp_path / "1.xml")
    (tmp_path / "1.xml").write_text("<HRSC", encoding="utf-8")
    with pytest.raises(DataError, match="no XML"):
        read_hrsc(tmp_path / "1.xml")


def coco(**changes: Any) -> dict[str, Any]:
    row = {"id": 3, "image_id": 7, "category_id": 2, "iscrowd": 0, "bbox": [0, 0, 1, 1]}
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "height": 40, "width": 60}],
        "categories": [{"id": 2, "name": "ship"}],
        "annotations": [row | {"segmentation": [[10, 10, 30, 10, 30, 20], [10, 20, 10, 10, 30, 20]]} | changes],
    }


def test_coco_polygons(folder: Path) -> None:
    path = folder / "train.json"

    def write(**changes: Any) -> Path:
        path.write_text(json.dumps(coco(**changes)), encoding="utf-8")
        return path

    write()
    settings = {"type": "RotatedCocoDataset", "ann_file": "train.json", "image_suffix": ".png"}
    dataset = build(folder, **settings)
    (ship,) = dataset.get_data_info(0)["instances"]
    assert dataset.get_data_info(0)["img_id"] == 7
    assert ship["bbox"][:2] == [20, 15]
    assert sorted(ship["bbox"][2:4]) == [10, 20]
    with pytest.raises(DataError, match=r"no image .*a\.jpg"):
        build(folder, **settings | {"image_suffix": None})
    with pytest.raises(DataError, match="no image: look at"):
        build(folder, **settings | {"image_suffix": None, "only_existing": True})
    cv2.imwrite(str(folder / "images" / "a.jpg"), np.zeros((4, 4, 3), np.uint8))
    assert len(build(folder, **settings | {"image_suffix": None, "only_existing": True})) == 1
    # The same rectangle as runs of a mask, column by column.
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[10:20, 10:30] = 1
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    (encoded,) = read_coco(write(segmentation={"size": [40, 60], "counts": counts}, ignore=1))[0].objects
    assert encoded.difficult
    assert encoded.polygon.min(axis=0).tolist() == [10, 10]
    assert encoded.polygon.max(axis=0).tolist() == [30, 20]
    with pytest.raises(DataError, match="annotation 3 has no polygon"):
        read_coco(write(segmentation=[]))
    with pytest.raises(DataError, match="annotation 3 has a broken segmentation"):
        read_coco(write(segmentation=[[1, 2, 3]]))
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="no COCO file"):
        read_coco(path)


@needs_ssdd
def test_ssdd_without_the_copies_across_its_splits() -> None:
    settings = {"metainfo": {"classes": ("ship",)}, "data_root": str(SSDD / "data" / "ssdd")}
    train = build(SSDD, ann_file="train/labelTxt", data_prefix={"img": "train/images"}, **settings)
    test = build(SSDD, ann_file="test/all/labelTxt", data_prefix={"img": "test/all/images"}, **settings)
    counts = [sum(len(each.get_data_info(i)["instances"]) for i in range(len(each))) for each in (train, test)]
    assert ([len(train), len(test)], counts) == ([928, 232], [2017, 532])
    # 10 images of test are in train too, two of them twice.
    settings |= {"ann_file": "train/labelTxt", "data_prefix": {"img": "train/images"}}
    apart = build(SSDD, leave_out=["test/all/images"], **settings)
    assert (len(apart), apart.copies) == (916, 12)


@needs_ssdd
def test_ssdd_polygons_of_other_annotators() -> None:
    dataset = build(
        SSDD,
        type="RotatedCocoDataset",
        ann_file="SSDD_polygons_coco.json",
        data_prefix={"img": "data/ssdd/train/images"},
        metainfo={"classes": ("ship",)},
        image_suffix=".png",
        only_existing=True,
    )
    assert len(dataset) == 928
    assert dataset.degenerate_boxes == 0
