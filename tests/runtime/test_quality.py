"""AP and agreement of detectors whose boxes are given, by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from ld_runtime.detections import Detections
from ld_runtime.errors import DataError, ParityError
from ld_runtime.quality import Agreement, GroundTruth

WHOLE, HALF, LESS = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 5.0), (0.0, 0.0, 10.0, 4.9)
FAR = (50.0, 50.0, 60.0, 60.0)


class Given:
    """A detector that finds what it is told to, image by image: (box, score, label)."""

    max_detections = 100

    def __init__(self, card, *images, class_names=("a", "b")) -> None:
        self.card, self.class_names, self._images = card, class_names, images

    def predict(self, paths):
        assert len(paths) == len(self._images)
        for found in self._images:
            boxes = np.array([one[0] for one in found], np.float32).reshape(-1, 4)
            scores = np.array([one[1] for one in found], np.float32)
            yield Detections(boxes, scores, np.array([one[2] for one in found], np.int64))


def agreement(card, first, other) -> float:
    measure = Agreement([Path("x.png")])
    assert measure.of("first", Given(card, first)) == 1
    return measure.of("other", Given(card, other))


def test_agreement(card) -> None:
    assert agreement(card, [(WHOLE, 0.9, 0)], [(HALF, 0.5, 0)]) == 1  # an IoU of exactly 0.5
    assert agreement(card, [(WHOLE, 0.9, 0)], [(LESS, 0.5, 0)]) == 0
    assert agreement(card, [(WHOLE, 0.9, 0)], [(WHOLE, 0.9, 1)]) == 0  # another class
    assert agreement(card, [(WHOLE, 0.9, 0), (FAR, 0.8, 0)], [(WHOLE, 0.9, 0)]) == pytest.approx(2 / 3)
    assert agreement(card, [(WHOLE, 0.9, 0)], [(WHOLE, 0.9, 0), (FAR, 0.29, 0)]) == 1  # nobody is shown that box
    assert agreement(card, [(WHOLE, 0.9, 0)], [(WHOLE, 0.9, 0), (FAR, 0.31, 0)]) == pytest.approx(2 / 3)
    assert agreement(card, [(WHOLE, 0.9, 0)], []) == 0


def test_the_first_stays_the_first(card) -> None:
    measure = Agreement([Path("x.png")])
    first, other = Given(card, [(WHOLE, 0.9, 0)]), Given(card, [(FAR, 0.9, 0)])
    assert [measure.of("", one) for one in (first, other, other, first)] == [1, 0, 0, 1]


def test_agreement_of_nothing_is_refused(card) -> None:
    with pytest.raises(ParityError, match="comparing nothing"):
        Agreement([Path("x.png")]).of("first", Given(card, []))


def test_agreement_needs_the_same_classes(card) -> None:
    measure = Agreement([Path("x.png")])
    measure.of("one.onnx", Given(card, [(WHOLE, 0.9, 0)]))
    with pytest.raises(DataError, match=r"two.onnx detects \['b', 'a'\] and one.onnx \['a', 'b'\]"):
        measure.of("two.onnx", Given(card, [(WHOLE, 0.9, 0)], class_names=("b", "a")))


def test_ap_goes_by_the_ids_of_the_file(card, tmp_path) -> None:
    """Two images, ids and categories not in order; a box found in one of the two: 51 of 101 recall levels."""
    boxes = [
        {"id": 1, "image_id": 9, "category_id": 6, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        {"id": 2, "image_id": 4, "category_id": 6, "bbox": [50, 50, 10, 10], "area": 100, "iscrowd": 0},
    ]
    truth = {
        "images": [{"id": one, "file_name": f"{one}.png", "width": 99, "height": 99} for one in (9, 4)],
        "categories": [{"id": 6, "name": "b"}, {"id": 2, "name": "a"}],
        "annotations": boxes,
    }
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth), encoding="utf-8")
    measure = GroundTruth(file, tmp_path / "images")
    assert measure.paths == [tmp_path / "images" / "9.png", tmp_path / "images" / "4.png"]
    assert measure.of("x", Given(card, [(WHOLE, 0.9, 1)], [(FAR, 0.8, 1)])) == pytest.approx(1)
    assert measure.of("x", Given(card, [(WHOLE, 0.9, 1)], [])) == pytest.approx(51 / 101)
    assert measure.of("x", Given(card, [(FAR, 0.9, 1)], [(WHOLE, 0.8, 1)])) == 0
    assert measure.of("x", Given(card, [(WHOLE, 0.9, 0)], [(FAR, 0.8, 0)])) == 0
    assert measure.of("x", Given(card, [], [])) == 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"images": [{}], "categories": []}'])
def test_no_coco_file(content: str, tmp_path) -> None:
    file = tmp_path / "truth.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match="no COCO file of labelled images"):
        GroundTruth(file, tmp_path)
