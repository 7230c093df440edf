from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ld_runtime.errors import DataError, InputError
from ld_runtime.rotated_eval import IOU_THRESHOLDS, RotatedAp, RotatedImage, average_precision, evaluate_rotated
from ld_runtime.rotated_nms import rotated_iou

ORACLE = Path(__file__).parents[1] / "oracles" / "dota_eval.npz"


def image(detections: list[tuple[Any, ...]] | None = None, truths: list[tuple[Any, ...]] | None = None) -> RotatedImage:
    """Detections are (box, score, label), truths (box, label, difficult)."""
    found, true = detections or [], truths or []
    return RotatedImage(
        np.array([row[0] for row in found], np.float32).reshape(-1, 5),
        np.array([row[1] for row in found], np.float32),
        np.array([row[2] for row in found], np.int64),
        np.array([row[0] for row in true], np.float32).reshape(-1, 5),
        np.array([row[1] for row in true], np.int64),
        np.array([row[2] for row in true], bool),
    )


BOX = (50, 50, 40, 20, 0.4)
FAR = (300, 300, 40, 20, 1.0)
NOWHERE = (600, 600, 40, 20, 1.0)


def shifted(iou: float) -> tuple[float, ...]:
    """BOX moved along its side w so that the IoU is this: (1 - s) / (1 + s) of a shift by s * w."""
    step = 40 * (1 - iou) / (1 + iou)
    return (50 + step * math.cos(0.4), 50 + step * math.sin(0.4), 40, 20, 0.4)


def test_by_hand() -> None:
    # Two truths; right, wrong, right: precision 1 up to recall 1/2, 2/3 up to 1.
    found = [(BOX, 0.9, 0), (NOWHERE, 0.8, 0), (FAR, 0.7, 0)]
    images = [image(found, [(BOX, 0, False), (FAR, 0, False)])]
    points = evaluate_rotated(images, class_names=["ship"])
    assert points.ap50 == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    area = evaluate_rotated(images, class_names=["ship"], mode="area")
    assert area.ap == area.ap50 == area.ap75 == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert area.to_dict() == {
        "ap": pytest.approx(5 / 6),
        "ap50": pytest.approx(5 / 6),
        "ap75": pytest.approx(5 / 6),
        "classes": {"ship": {"ap": pytest.approx(5 / 6), "ap50": pytest.approx(5 / 6), "ap75": pytest.approx(5 / 6)}},
    }


def test_the_writing_of_a_box_does_not_matter() -> None:
    turned = (50, 50, 20, 40, 0.4 - math.pi / 2)
    result = evaluate_rotated([image([(turned, 0.9, 0)], [(BOX, 0, False)])], class_names=["ship"])
    assert result.ap == 1


def test_thresholds() -> None:
    result = evaluate_rotated([image([(shifted(0.72), 0.9, 0)], [(BOX, 0, False)])], class_names=["ship"], mode="area")
    assert result.by_threshold.tolist() == [1] * 5 + [0] * 5
    assert (result.ap, result.ap50, result.ap75) == (0.5, 1, 0)
    # Exactly at 0.5 is not above it: 4 x 2 against the left half of it.
    exact = [image([((1, 0, 2, 2, 0), 0.9, 0)], [((2, 0, 4, 2, 0), 0, False)])]
    assert rotated_iou(exact[0].boxes, exact[0].truth_boxes).item() == 0.5
    assert evaluate_rotated(exact, class_names=["ship"]).ap50 == 0
    assert np.float32(0.95) == IOU_THRESHOLDS[-1]
    assert len(IOU_THRESHOLDS) == 10


def test_second_detection_of_a_truth_is_wrong_whatever_its_order_in_the_file() -> None:
    truths = [(BOX, 0, False), (FAR, 0, False)]
    found = [(BOX, 0.6, 0), (shifted(0.9), 0.9, 0), (FAR, 0.5, 0)]
    for rows in (found, found[::-1]):
        result = evaluate_rotated([image(rows, truths)], class_names=["ship"], mode="area")
        assert result.ap50 == pytest.approx(0.5 + 0.5 * 2 / 3)
        # At 0.95 the better one misses, and the exact one is right.
        assert result.by_threshold[-1] == pytest.approx(2 / 3)


def test_a_detection_goes_to_the_truth_that_it_overlaps_most_taken_or_not() -> None:
    # Both lie on BOX; the second would also do for its neighbour, which stays missed.
    neighbour = shifted(0.8)
    found = [(BOX, 0.9, 0), (BOX, 0.8, 0)]
    result = evaluate_rotated([image(found, [(BOX, 0, False), (neighbour, 0, False)])], class_names=["s"], mode="area")
    assert result.ap50 == pytest.approx(0.5)


def test_difficult_truths_count_neither_way() -> None:
    truths = [(BOX, 0, True), (FAR, 0, False)]
    found = [(BOX, 0.9, 0), (shifted(0.9), 0.8, 0), (FAR, 0.7, 0)]
    assert evaluate_rotated([image(found, truths)], class_names=["ship"]).ap75 == 1
    # Beside a difficult one, though, it is wrong.
    missing = [(shifted(0.4), 0.9, 0), (FAR, 0.7, 0)]
    assert evaluate_rotated([image(missing, truths)], class_names=["ship"], mode="area").ap50 == 0.5
    # A class of difficult truths only has no AP.
    assert evaluate_rotated([image(found, [(BOX, 0, True)])], class_names=["ship"]).by_class == {}


def test_classes_and_images_are_apart() -> None:
    one = image([(BOX, 0.9, 1)], [(BOX, 0, False)])
    two = image([(BOX, 0.8, 0)], [(BOX, 1, False)])
    result = evaluate_rotated([one, two], class_names=["ship", "plane", "nothing"])
    assert list(result.by_class) == ["ship", "plane"]
    assert result.ap == 0
    right = image([(BOX, 0.9, 0)], [(BOX, 0, False)])
    both = evaluate_rotated([right, two, right], class_names=["ship", "plane"], mode="area")
    assert both.by_class["ship"][0] == 1  # the false one has a lower score than both
    assert both.ap50 == 0.5


def test_order_over_images_is_by_score() -> None:
    wrong_first = [image([(NOWHERE, 0.9, 0)]), image([(BOX, 0.5, 0)], [(BOX, 0, False)])]
    assert evaluate_rotated(wrong_first, class_names=["ship"], mode="area").ap50 == 0.5
    wrong_last = [image([(NOWHERE, 0.4, 0)]), image([(BOX, 0.5, 0)], [(BOX, 0, False)])]
    assert evaluate_rotated(wrong_last, class_names=["ship"], mode="area").ap50 == 1


def test_nothing_found_and_nothing_there() -> None:
    assert evaluate_rotated([image(None, [(BOX, 0, False)])], class_names=["ship"]).ap == 0
    empty = evaluate_rotated([image([(BOX, 0.9, 0)])], class_names=["ship"])
    assert (empty.by_class, empty.ap) == ({}, 0)
    broken = image([((50, 50, float("nan"), 20, 0), 0.9, 0), (BOX, 0.5, 0)], [(BOX, 0, False)])
    assert evaluate_rotated([broken], class_names=["ship"], mode="area").ap == 0.5
    with pytest.raises(DataError, match="no image"):
        evaluate_rotated([], class_names=["ship"])
    with pytest.raises(DataError, match="11points or area"):
        evaluate_rotated([image()], class_names=["ship"], mode="13points")  # type: ignore[arg-type]
    nothing = np.zeros((0, 5), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    with pytest.raises(InputError, match=r"\(1, 4\)"):
        RotatedImage(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64), *nothing)


def test_many_detections_are_taken_in_blocks() -> None:
    rng = np.random.default_rng(0)
    truths = [((float(x), float(y), 30, 10, 0.3), 0, False) for x in range(0, 1000, 50) for y in range(0, 1000, 50)]
    found = [(row[0], float(score), 0) for row, score in zip(truths, rng.uniform(0.1, 1, len(truths)), strict=True)]
    assert len(found) == 400
    assert evaluate_rotated([image(found, truths)], class_names=["ship"], mode="area").ap == pytest.approx(1)


def test_reported_and_true_means_of_the_published_script() -> None:
    with np.load(ORACLE) as arrays:
        per_class = arrays["per_class"]
        result = RotatedAp({str(i): per_class[:, i] for i in range(15)})
        np.testing.assert_allclose(result.by_threshold, arrays["true"], atol=1e-9)
        assert result.ap == pytest.approx(arrays["true"].mean(), abs=1e-9)
        assert result.ap50 == pytest.approx(arrays["reported"][0], abs=1e-9)
        # What it reports is ours with a fifteenth of the last threshold's added: the error that is not repeated.
        carried = 0.0
        for ours, reported in zip(result.by_threshold, arrays["reported"], strict=True):
            carried = ours + carried / 15
            assert carried == pytest.approx(reported, abs=1e-9)
        curve = arrays["voc_ap_rec"], arrays["voc_ap_prec"]
        assert average_precision(*curve, mode="11points") == pytest.approx(arrays["ap07"].item(), abs=1e-9)
        assert average_precision(*curve, mode="area") == pytest.approx(arrays["ap"].item(), abs=1e-9)
