"""Rotated boxes through the runtime's types: detections, files, tiles, pictures, comparison, AP."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ld_runtime.coco import evaluate_boxes
from ld_runtime.detection_journal import JournalEntry
from ld_runtime.detection_record import DetectionRecord
from ld_runtime.detections import Detections
from ld_runtime.draw import draw
from ld_runtime.errors import DataError, ModelCardError, ParityError
from ld_runtime.model_card import ModelCard, NmsSettings, Preprocess
from ld_runtime.parity import compare_detections
from ld_runtime.rotated_boxes import differences, in_half_turn, rescaled
from ld_runtime.rotated_nms import RotatedNmsSettings
from ld_runtime.tiling import inside_a_larger_box, moved
from tests.runtime.rotated_cases import crowd, written_otherwise

F32 = np.float32
PLAIN = Preprocess("stretch", None, (64, 96), 32, (0, 0, 0), (0, 0, 0), (1, 1, 1))
RULE: dict[str, Any] = {"score_threshold": 0.05, "max_detections": 100, "iou_threshold": 0.1}


def found(*rows: tuple[float, ...], score: float = 0.9) -> Detections:
    """Boxes cx cy w h angle of class 0, with falling scores."""
    boxes = np.array(rows, F32).reshape(-1, 5)
    scores = (score - 0.1 * np.arange(len(boxes))).astype(F32)
    return Detections(boxes, scores, np.zeros(len(boxes), np.int64))


def test_corners_and_hull_by_hand() -> None:
    one = found((10, 20, 8, 2, 0), (10, 20, 8, 2, math.pi / 2), (0, 0, 2 * math.sqrt(2), 0.5, math.pi / 4))
    assert one.is_rotated
    np.testing.assert_allclose(one.polygons[0], [[6, 19], [14, 19], [14, 21], [6, 21]], atol=1e-5)
    np.testing.assert_allclose(one.polygons[1], [[11, 16], [11, 24], [9, 24], [9, 16]], atol=1e-5)
    np.testing.assert_allclose(one.hulls[:2], [[6, 19, 14, 21], [9, 16, 11, 24]], atol=1e-5)
    reach = 1 + 0.25 / math.sqrt(2)
    np.testing.assert_allclose(one.hulls[2], [-reach, -reach, reach, reach], atol=1e-5)
    assert (one.hulls.dtype, one.polygons.dtype) == (F32, F32)
    upright = Detections(np.array([[1, 2, 3, 5]], F32), np.ones(1, F32), np.zeros(1, np.int64))
    assert not upright.is_rotated
    np.testing.assert_array_equal(upright.hulls, upright.boxes)
    np.testing.assert_array_equal(upright.polygons, [[[1, 2], [3, 2], [3, 5], [1, 5]]])


def test_a_hull_is_that_of_the_corners() -> None:
    boxes, scores, labels = crowd(0, 50)
    one = Detections(boxes, np.sort(scores)[::-1].copy(), labels)
    around = np.concatenate([one.polygons.min(axis=1), one.polygons.max(axis=1)], axis=1)
    np.testing.assert_allclose(one.hulls, around, atol=1e-3)


def test_coco_rows_carry_hull_polygon_and_box() -> None:
    (row,) = found((10, 20, 8, 2, math.pi / 2)).to_coco(image_id=3, category_ids=[7])
    assert row["bbox"] == pytest.approx([9, 16, 2, 8], abs=1e-5)
    assert row["segmentation"][0] == pytest.approx([11, 16, 11, 24, 9, 24, 9, 16], abs=1e-5)
    assert row["rotated_bbox"] == pytest.approx([10, 20, 8, 2, math.pi / 2])
    assert (row["image_id"], row["category_id"]) == (3, 7)
    json.dumps(row)


def test_supervision_has_oriented_boxes() -> None:
    one = found((10, 20, 8, 2, 0.3))
    marks = one.to_supervision()
    np.testing.assert_array_equal(marks.xyxy, one.hulls)
    np.testing.assert_array_equal(marks.data["xyxyxyxy"], one.polygons)


def test_the_picture_shows_tilted_boxes() -> None:
    image = np.zeros((300, 300, 3), np.uint8)
    drawn = draw(image, found((150, 200, 200, 60, math.pi / 4)), class_names=["a"]).any(axis=2)
    end = int(100 / math.sqrt(2))  # from the centre to the middle of a short side
    assert drawn[200 + end - 3 : 200 + end + 4, 150 + end - 3 : 150 + end + 4].any()
    assert not drawn[190:211, 140:161].any()  # the middle, which no line crosses
    assert not drawn[270:, :90].any()  # the lower left corner of the hull, where an upright box would have lines


def test_journal_and_record_give_back_what_they_took(tmp_path: Path) -> None:
    one, none = found((10.25, 20, 8, 2, -1.5), (3, 4, 5, 6, 0.75)), found()
    for each in (one, none):
        back = JournalEntry.from_line(JournalEntry("a.png", (50, 60), each).to_line().encode())
        assert back is not None
        assert back.detections is not None
        assert back.detections.is_rotated
        np.testing.assert_array_equal(back.detections.boxes, each.boxes)
    record = DetectionRecord("a", [Path("/a"), Path("/b")], {}, [1], {"a": [one, none]})
    record.write(tmp_path / "r.detections.json.gz")
    kept = DetectionRecord.read(tmp_path / "r.detections.json.gz").detections["a"]
    assert [each.boxes.shape for each in kept] == [(2, 5), (0, 5)]
    np.testing.assert_allclose(kept[0].boxes, one.boxes, atol=1e-6)


def test_a_card_says_its_boxes_and_old_cards_are_upright() -> None:
    settings = RotatedNmsSettings(iou_threshold=0.2, max_detections=7)
    card = ModelCard(PLAIN, ("a",), nms=settings, nms_kind="rotated_cluster", box_format="cxcywha")
    assert ModelCard.from_json(card.to_json()) == card
    upright = ModelCard(PLAIN, ("a",))
    assert "box_format" not in json.loads(upright.to_json())
    assert ModelCard.from_json(upright.to_json()) == upright
    with pytest.raises(ModelCardError, match="the NMS of cxcywha boxes is rotated_cluster"):
        replace(card, nms=NmsSettings())
    with pytest.raises(ModelCardError, match="the NMS of xyxy boxes is cluster_diou"):
        replace(upright, nms_kind="rotated_cluster")
    content = {**json.loads(card.to_json()), "box_format": "polygon"}
    with pytest.raises(ModelCardError):
        ModelCard.from_json(json.dumps(content))


def test_a_stretch_by_hand_and_against_its_corners() -> None:
    boxes = np.array([[10, 20, 8, 2, 0], [10, 20, 8, 2, -math.pi / 2], [10, 20, 8, 2, math.pi / 4]], F32)
    out = rescaled(boxes, (2, 3))
    np.testing.assert_allclose(out[0], [20, 60, 16, 6, 0], atol=1e-5)
    assert np.abs(differences(out[1], np.array([20, 60, 24, 4, -math.pi / 2]))).max() < 1e-5
    length = math.hypot(2, 3) / math.sqrt(2)
    np.testing.assert_allclose(out[2], [20, 60, 8 * length, 2 * length, math.atan2(3, 2)], atol=1e-4)
    boxes, _, _ = crowd(1, 60)
    same = rescaled(boxes, (2.5, 2.5))
    expected = boxes * np.array([2.5, 2.5, 2.5, 2.5, 1], F32)
    assert np.abs(differences(expected, same)).max() < 1e-3
    back = rescaled(rescaled(boxes, (2.0, 2.0)), (0.5, 0.5))
    assert np.abs(differences(boxes, back)).max() < 1e-3


def test_angles_end_where_they_begin() -> None:
    angles = in_half_turn(np.array([math.pi / 2, -math.pi / 2, math.pi, 3.0, np.nextafter(F32(np.pi / 2), F32(0))]))
    assert ((angles >= -F32(np.pi / 2)) & (angles < F32(np.pi / 2))).all()
    assert angles[0] == -F32(np.pi / 2)
    assert angles[3] == pytest.approx(3 - math.pi, abs=1e-6)
    assert np.isnan(in_half_turn(np.array([math.nan]))).all()


def test_a_box_written_otherwise_agrees_with_itself() -> None:
    boxes, scores, labels = crowd(2, 40)
    order = np.argsort(-scores)
    one = Detections(boxes[order], scores[order], labels[order])
    other = replace(one, boxes=written_otherwise(one.boxes, np.arange(40) % 5 - 2))
    agreement = compare_detections([one], [other], **RULE)
    assert agreement.matched_share == 1
    assert agreement.max_box_difference_px == 0
    assert agreement.max_angle_difference_deg == pytest.approx(0, abs=1e-3)


def test_shift_and_turn_of_a_pair_by_hand() -> None:
    one, other = found((50, 50, 100, 40, 1.0)), found((50.1, 50, 40, 100.05, 1.0 - math.pi / 2 + 0.001))
    agreement = compare_detections([one], [other], **RULE)
    assert agreement.matched_pairs == 1
    assert agreement.max_box_difference_px == pytest.approx(0.1, abs=1e-4)
    assert agreement.max_angle_difference_deg == pytest.approx(math.degrees(0.001), abs=1e-4)
    turned = compare_detections([one], [found((50, 50, 100, 40, 1.2))], **RULE)
    assert turned.matched_pairs == 0
    assert [each.cause for each in turned.unmatched] == ["unexplained", "unexplained"]
    upright = Detections(np.array([[0, 0, 9, 9]], F32), np.ones(1, F32), np.zeros(1, np.int64))
    with pytest.raises(ParityError, match="rotated boxes cannot be compared with upright ones"):
        compare_detections([one], [upright], **RULE)


def test_a_box_near_the_nms_threshold_is_explained_by_it() -> None:
    # Two bars of 100 x 10, one shifted along: IoU (100 - d) / (100 + d) = 0.1 at d = 81.8.
    along = np.array([math.cos(0.5), math.sin(0.5)]) * 81.8
    one = found((50, 50, 100, 10, 0.5), (50 + along[0], 50 + along[1], 100, 10, 0.5))
    agreement = compare_detections([one], [found((50, 50, 100, 10, 0.5))], **RULE)
    assert [each.cause for each in agreement.unmatched] == ["iou_threshold"]


def test_ap_is_that_of_rotated_boxes() -> None:
    bar, across = (50, 50, 60, 10, 0.5), (50, 50, 60, 10, 0.5 + math.pi / 2)  # their IoU is 1 / 11
    truth = {
        "images": [{"id": 5}, {"id": 6}],
        "categories": [{"id": 1, "name": "a"}, {"id": 4, "name": "b"}],
        "annotations": found(bar).to_coco(image_id=5, category_ids=[4]),
    }
    right = evaluate_boxes(truth, found(bar).to_coco(image_id=5, category_ids=[4]))
    assert (right.ap, right.ap50, right.ap_small) == (1, 1, None)
    assert right.per_class_ap == {"a": None, "b": 1}
    assert evaluate_boxes(truth, found(across).to_coco(image_id=5, category_ids=[4])).ap == 0
    assert evaluate_boxes(truth, found(bar).to_coco(image_id=6, category_ids=[4])).ap == 0
    assert evaluate_boxes(truth, []).ap == 0
    crowds = {**truth, "annotations": [*truth["annotations"], {**truth["annotations"][0], "iscrowd": 1}]}
    crowds["annotations"][1] = {**crowds["annotations"][1], "rotated_bbox": [10, 10, 9, 4, 0]}
    both = found((10, 10, 9, 4, 0), bar)
    assert evaluate_boxes(crowds, both.to_coco(image_id=5, category_ids=[4])).ap == 1  # a difficult one counts not
    upright = {**truth, "annotations": [{"image_id": 5, "category_id": 4, "bbox": [0, 0, 9, 9], "id": 1}]}
    with pytest.raises(DataError, match="the ground truth has upright ones"):
        evaluate_boxes(upright, found(bar).to_coco(image_id=5, category_ids=[4]))


def test_boxes_of_a_tile_move_with_it_and_a_part_falls_to_the_whole() -> None:
    boxes, hulls = moved(found((10, 20, 8, 2, 0)), np.array([100, 50]))
    np.testing.assert_allclose(boxes, [[110, 70, 8, 2, 0]])
    np.testing.assert_allclose(hulls, [[106, 69, 114, 71]])
    whole, part, beside = (50, 50, 100, 10, 0.7), (50, 50, 40, 9, 0.7), (50, 50, 40, 9, 0.7 + math.pi / 2)
    three = np.array([whole, part, beside], F32)
    inside = inside_a_larger_box(
        three,
        np.full(3, 0.5, F32),
        np.zeros(3, np.int64),
        cut=np.array([False, True, True]),
        tile=np.array([0, 1, 1]),
    )
    assert inside.tolist() == [False, True, False]
