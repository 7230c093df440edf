from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ld_export.paired_ap import MatchedImages, paired_difference
from ld_runtime.coco import evaluate_boxes
from ld_runtime.errors import DataError


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


@pytest.mark.parametrize("seed", range(4))
def test_equals_cocos(seed: int) -> None:
    truth, rows = random_case(seed, noise=3)
    assert MatchedImages(truth, rows).ap() == pytest.approx(evaluate_boxes(truth, rows).ap, abs=1e-12)


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
