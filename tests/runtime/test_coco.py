"""AP against numbers that one can count."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from ld_runtime.coco import evaluate_boxes
from ld_runtime.coco_stream import write_coco
from ld_runtime.detection_journal import JournalEntry
from ld_runtime.detections import Detections
from ld_runtime.errors import DataError

ONE = pytest.approx(1.0, abs=1e-12)  # pycocotools adds one unit in the last place to each denominator


def truth(*boxes: tuple[int, int, list[float]], names: tuple[str, ...] = ("cell", "platelet")) -> dict:
    """Rows of image id, category id, [x, y, width, height]."""
    return {
        "images": [{"id": index, "width": 640, "height": 480} for index in sorted({box[0] for box in boxes} | {1})],
        "categories": [{"id": 5 + index, "name": name} for index, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0,
             "area": bbox[2] * bbox[3]}
            for number, (image, category, bbox) in enumerate(boxes, start=1)
        ],
    }  # fmt: skip


def row(image_id: int, category_id: int, bbox: list[float], score: float) -> dict:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, "score": score}


THREE = [(1, 5, [10, 10, 20, 20]), (1, 6, [100, 100, 50, 50]), (2, 5, [200, 200, 120, 120])]


def test_perfect_detections_are_exactly_one(capsys: pytest.CaptureFixture[str]) -> None:
    ap = evaluate_boxes(truth(*THREE), [row(*box, 0.9) for box in THREE])
    assert (ap.ap, ap.ap50, ap.ap75) == (ONE, ONE, ONE)
    assert (ap.ap_small, ap.ap_medium, ap.ap_large) == (ONE, ONE, ONE)
    assert ap.per_class_ap == {"cell": ONE, "platelet": ONE}
    assert capsys.readouterr().out == ""


def test_two_classes_by_hand() -> None:
    # cell: the best detection is wrong, the second hits one of two boxes. Precision 1/2 up to recall 1/2: the 51 of
    # 101 recall points from 0 to 0.5 count, so AP50 is 51 / 101 / 2. platelet: found with IoU 50 * 40 / 2500 = 0.8,
    # which is a hit at 0.50 to 0.80, 7 of 10 thresholds.
    rows = [
        row(2, 5, [400, 10, 20, 20], 0.9),
        row(1, 5, [10, 10, 20, 20], 0.8),
        row(1, 6, [100, 100, 50, 40], 0.7),
    ]
    ap = evaluate_boxes(truth(*THREE), rows)
    assert ap.per_class_ap == pytest.approx({"cell": 51 / 202, "platelet": 0.7})
    assert ap.ap == pytest.approx((51 / 202 + 0.7) / 2)
    assert ap.ap50 == pytest.approx((51 / 202 + 1) / 2)
    assert ap.ap75 == pytest.approx((51 / 202 + 1) / 2)
    assert ap.ap_large == 0.0  # the one large box was missed


def test_no_detections_are_zero() -> None:
    ap = evaluate_boxes(truth(*THREE), [])
    assert (ap.ap, ap.ap50, ap.ap75) == (0.0, 0.0, 0.0)
    assert ap.per_class_ap == {"cell": 0.0, "platelet": 0.0}


def test_what_has_no_ground_truth_has_no_ap() -> None:
    only = [(1, 5, [10, 10, 20, 20])]
    ap = evaluate_boxes(truth(*only), [row(*only[0], 0.9)])
    assert ap.per_class_ap == {"cell": ONE, "platelet": None}
    assert (ap.ap, ap.ap_small, ap.ap_medium, ap.ap_large) == (ONE, ONE, None, None)


def test_arguments_are_not_changed_and_sparse_annotations_are_enough() -> None:
    ground_truth = truth(*THREE)
    for annotation in ground_truth["annotations"]:
        del annotation["area"], annotation["iscrowd"]
    rows = [row(*box, 0.9) for box in THREE]
    before = copy.deepcopy((ground_truth, rows))
    assert evaluate_boxes(ground_truth, rows).ap == ONE
    assert (ground_truth, rows) == before


def test_crowds_are_ignored() -> None:
    ground_truth = truth(*THREE)
    ground_truth["annotations"][2]["iscrowd"] = 1
    rows = [row(*box, 0.9) for box in THREE]
    assert evaluate_boxes(ground_truth, rows).ap == ONE
    assert evaluate_boxes(ground_truth, rows[:2]).ap == ONE


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_no_ground_truth_is_an_error(key: str) -> None:
    with pytest.raises(DataError, match=f"the ground truth has no {key}"):
        evaluate_boxes({**truth(*THREE), key: []}, [])


def test_a_foreign_row_is_an_error() -> None:
    with pytest.raises(DataError, match=r"1 image_id of the detections .* such as \[77\]"):
        evaluate_boxes(truth(*THREE), [row(77, 5, [0, 0, 1, 1], 0.5)])
    with pytest.raises(DataError, match=r"1 category_id of the detections .* such as \[1\]"):
        evaluate_boxes(truth(*THREE), [row(1, 1, [0, 0, 1, 1], 0.5)])


def test_a_document_describes_itself(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    found = Detections(
        np.array([[10, 20, 40, 60], [0, 0, 5, 6]], np.float32), np.array([0.9, 0.5], np.float32), np.array([1, 0])
    )
    entries = [
        JournalEntry(name="a.jpg", image_hw=(480, 640), detections=found),
        JournalEntry(name="b.jpg", image_hw=(10, 20), detections=Detections.empty()),
    ]
    path = tmp_path / "detections.json"
    assert write_coco(path, lambda: iter(entries), class_names=("cell", "platelet")) == 2
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["images"][1] == {"id": 1, "file_name": "b.jpg", "height": 10, "width": 20}
    assert document["categories"] == [{"id": 1, "name": "cell"}, {"id": 2, "name": "platelet"}]
    first = document["annotations"][0]
    assert first == {
        "id": 1, "image_id": 0, "category_id": 2, "bbox": [10, 20, 30, 40], "area": 1200, "iscrowd": 0,
        "score": pytest.approx(0.9),
    }  # fmt: skip
    loaded = COCO(str(path))
    assert [one["id"] for one in loaded.loadAnns(loaded.getAnnIds(imgIds=[0]))] == [1, 2]
    assert loaded.loadRes(document["annotations"]).getImgIds() == [0, 1]
