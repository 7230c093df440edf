from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ld_runtime.coco import evaluate_boxes
from ld_runtime.errors import DataError
from ld_runtime.paired_ap import MatchedImages, paired_difference


def document(boxes: list[list[tuple[int, float, float]]]) -> dict[str, Any]:
    """Image i has boxes of 20 x 20 pixels: class, x, y."""
    rows = [(image, *box) for image, found in enumerate(boxes) for box in found]
    annotations = [
        {"id": i + 1, "image_id": im, "category_id": c, "bbox": [x, y, 20.0, 20.0], "area": 400.0, "iscrowd": 0}
        for i, (im, c, x, y) in enumerate(rows)
    ]
    images = [{"id": i, "file_name": f"{i}.png", "height": 200, "width": 200} for i in range(len(boxes))]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def row(image: int, category: int, x: float, y: float, score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [x, y, 20.0, 20.0], "score": score}


def random_case(seed: int, *, noise: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rng = np.random.default_rng(7)
    truth = document(
        [[(int(rng.integers(1, 3)), *rng.uniform(0, 180, 2)) for _ in range(rng.integers(0, 6))] for _ in range(12)]
    )
    rng = np.random.default_rng(seed)
    rows = []
    for one in truth["annotations"]:
        x, y = np.asarray(one["bbox"][:2]) + rng.normal(0, noise, 2)
        rows.append(row(one["image_id"], one["category_id"], x, y, float(rng.uniform(0.1, 1))))
        if rng.uniform() < 0.4:
            rows.append(row(one["image_id"], 1, *rng.uniform(0, 180, 2), float(rng.uniform(0.1, 1))))
    return truth, rows


def test_ap_by_hand() -> None:
    truth = document([[(1, 0.0, 0.0)], [(1, 50.0, 50.0)]])
    found = MatchedImages(truth, [row(0, 1, 0.0, 0.0, 0.9), row(1, 1, 120.0, 0.0, 0.8)])
    # One of two is found, and before the miss: precision 1 up to recall 0.5, which is 51 of 101 recalls.
    assert found.ap() == pytest.approx(51 / 101)
    assert found.ap([0]) == 1.0
    assert found.ap([1]) == 0.0
    assert found.ap([0, 0, 1]) == pytest.approx(67 / 101)  # recalls up to 0.66
    assert MatchedImages(truth, []).ap() == 0.0


def turned(truth: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The same as rotated boxes, 10 pixels high, each at an angle of its own."""

    def rotated(one: dict[str, Any], angle: float) -> dict[str, Any]:
        x, y, width, height = one["bbox"]
        return {**one, "rotated_bbox": [x + width / 2, y + height / 2, width, height / 2, angle]}

    rng = np.random.default_rng(3)
    annotations = [rotated(one, float(rng.uniform(-0.2, 0.2))) for one in truth["annotations"]]
    return {**truth, "annotations": annotations}, [rotated(one, float(rng.uniform(-0.2, 0.2))) for one in rows]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rotated", [False, True])
def test_equals_the_evaluation(seed: int, rotated: bool) -> None:
    truth, rows = random_case(seed, noise=3)
    if rotated:
        truth, rows = turned(truth, rows)
    assert MatchedImages(truth, rows).ap() == pytest.approx(evaluate_boxes(truth, rows).ap, abs=1e-12)


def repeated(truth: dict[str, Any], rows: list[dict[str, Any]], sample: list[int]) -> tuple[dict[str, Any], list[Any]]:
    """The data set in which images stand as often as in a sample."""
    images, annotations, found = [], [], []
    for new, old in enumerate(sample):
        images.append({**truth["images"][old], "id": new})
        annotations += [{**one, "image_id": new} for one in truth["annotations"] if one["image_id"] == old]
        found += [{**one, "image_id": new} for one in rows if one["image_id"] == old]
    annotations = [{**one, "id": index + 1} for index, one in enumerate(annotations)]
    return {**truth, "images": images, "annotations": annotations}, found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowds", [False, True])
@pytest.mark.parametrize("rotated", [False, True])
def test_a_sample_is_the_data_set_with_its_images_repeated(seed: int, crowds: bool, rotated: bool) -> None:
    truth, rows = random_case(seed, noise=3)
    if rotated:
        truth, rows = turned(truth, rows)
    if crowds:
        for one in truth["annotations"][::3]:
            one["iscrowd"] = 1
    sample = sorted(np.random.default_rng(seed).integers(0, 12, 12).tolist())
    expected = evaluate_boxes(*repeated(truth, rows, sample)).ap
    matched = MatchedImages(truth, rows)
    assert matched.ap(sample) == pytest.approx(expected, abs=1e-12)
    assert matched.ap(sample[::-1]) == matched.ap(sample)
    counts = np.stack([np.bincount(sample, minlength=12), np.ones(12, np.int64)])
    assert matched.aps(counts).tolist() == [matched.ap(sample), matched.ap()]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    matched = MatchedImages(*random_case(0, noise=3))
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), 7)
    expected = matched.aps(counts).tolist()
    monkeypatch.setattr("ld_runtime.paired_ap._BLOCK", 1)
    assert matched.aps(counts).tolist() == expected


def test_difference() -> None:
    truth, good = random_case(0, noise=1)
    _, bad = random_case(1, noise=5)
    one, other = MatchedImages(truth, good), MatchedImages(truth, bad)
    found = paired_difference(one, other)
    assert found.ap == one.ap() - other.ap()
    assert 0 < found.low < found.ap < found.high < 1
    assert paired_difference(other, one).high == pytest.approx(-found.low)
    same = paired_difference(one, one)
    assert (same.ap, same.low, same.high) == (0, 0, 0)


def test_no_ground_truth() -> None:
    with pytest.raises(DataError, match="no annotations"):
        MatchedImages(document([[]]), [])
