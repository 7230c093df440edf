"""A report of rotated boxes: they are compared as rotated ones, and drawn tilted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from ld_runtime.coco import precision_by_recall
from ld_runtime.detection_record import DetectionRecord, record_path
from ld_runtime.detections import Detections
from ld_runtime.errors import ParityError
from ld_runtime.report import write_report
from ld_runtime.report.differences import difference_of
from ld_runtime.report.evaluation import confusion, score_image, truths_of
from ld_runtime.report.parity_section import pairs_of_boxes
from tests.runtime.report_cases import AGREEMENT, FACTS, document, write_images, write_parity

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser import Browser

LONG, TILTED, OTHER = (50, 50, 40, 10, 0.0), (50, 50, 40, 10, 0.5), (20, 80, 20, 10, -1.0)


def rotated(*rows: tuple[tuple[float, ...], float, int]) -> Detections:
    boxes, scores, labels = zip(*rows, strict=True)
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(labels))


def rotated_document() -> dict[str, Any]:
    """TILTED of the first class and OTHER of the second in one image, LONG in the other."""
    content = document()
    for one, box in zip(content["annotations"], (TILTED, OTHER, LONG), strict=True):
        one["rotated_bbox"] = list(box)
    return content


# The same box written with its sides exchanged; then a quarter turn, of which a seventh is in common.
REFERENCE = (rotated((TILTED, 0.9, 0), (OTHER, 0.8, 1)), rotated(((50, 50, 10, 40, math.pi / 2), 0.7, 0)))
MOVED = (50.05, 50, 40, 10, 0.5)
DEPLOYED = (rotated((MOVED, 0.9, 0), (OTHER, 0.8, 0)), rotated(((50, 50, 40, 10, math.pi / 2), 0.7, 0)))


def record(images: list[Path]) -> DetectionRecord:
    return DetectionRecord("PyTorch", images, rotated_document(), (1, 2), {"PyTorch": REFERENCE, "a.onnx": DEPLOYED})


def test_pairs_are_of_rotated_boxes() -> None:
    truths = truths_of(record([]))
    assert confusion(truths, REFERENCE, classes=2).tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion(truths, DEPLOYED, classes=2).tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]
    assert [one.f1 for one in map(score_image, truths, REFERENCE)] == [1, 1]
    upright = Detections(np.array([[0, 0, 9, 9]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64))
    with pytest.raises(ParityError, match="rotated boxes cannot be compared with upright ones"):
        score_image(truths[0], upright)


def test_how_far_boxes_are_apart() -> None:
    pairs = pairs_of_boxes(record([]), "a.onnx")
    assert pairs.scores.tolist() == [[pytest.approx(0.9), pytest.approx(0.9)]]  # of another class, turned
    assert pairs.shift_px.tolist() == [pytest.approx(0.05, abs=1e-5)]  # no angle
    written = rotated(((50, 50, 10, 40, math.pi / 2), 0.7, 0)), rotated((LONG, 0.7, 0))
    assert difference_of(*written).size == pytest.approx(0, abs=1e-6)
    assert difference_of(REFERENCE[1], DEPLOYED[1]).apart == ((0,), (0,))


def test_precision_by_recall_by_hand() -> None:
    content = rotated_document()
    content["annotations"] = [one for one in content["annotations"] if one["category_id"] == 1]  # TILTED and LONG
    far = (90, 10, 10, 5, 0.0)
    # Along its long side by s: (40 - s) / (40 + s) is 0.77 and 0.52.
    near, nearer = (40 * (1 - iou) / (1 + iou) for iou in (0.52, 0.77))
    along = (50 + nearer * math.cos(0.5), 50 + nearer * math.sin(0.5), *TILTED[2:])
    found = (rotated((along, 0.9, 0), (far, 0.8, 0)), rotated(((50 + near, 50, 40, 10, 0.0), 0.7, 0)))
    rows = [row for at, one in enumerate(found) for row in one.to_coco(image_id=at, category_ids=(1, 2))]
    curves = precision_by_recall(content, rows)
    assert set(curves) == {"IoU 0.50", "IoU 0.75", "mean"}
    half, most, mean = (curves[name][1] for name in ("IoU 0.50", "IoU 0.75", "mean"))
    np.testing.assert_allclose(half, [1] * 51 + [2 / 3] * 50)
    np.testing.assert_allclose(most, [1] * 51 + [0] * 50)
    np.testing.assert_allclose(mean, [0.6] * 51 + [2 / 3 * 0.1] * 50)  # one up to 0.75, the other at 0.5 alone
    assert curves["IoU 0.50"][2] is None  # no such ground truth


def test_page(tmp_path: Path, browser: Browser) -> None:
    images = write_images(tmp_path / "images")
    files = {"a.onnx": (0.4, AGREEMENT, {"sha256": "a" * 64, **FACTS}, DEPLOYED)}
    parity = tmp_path / "run" / "parity.json"
    write_parity(parity, images=images, checkpoint="c" * 64, reference_ap=0.6, files=files)
    record(images).write(record_path(parity))
    page = write_report([parity], output=tmp_path / "report.html").path
    text = page.read_text(encoding="utf-8")
    assert '<rect x="30.0" y="45.0" width="40.0" height="10.0" transform="rotate(28.65 50.0 50.0)"' in text  # 0.5 rad
    with browser.open(page) as opened:
        assert opened.problems == []
        boxes = opened.page.locator("svg rect[transform]")
        assert boxes.count() >= 4
