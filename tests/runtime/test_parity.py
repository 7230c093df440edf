"""Box agreement: pairs, shares and the cause of each box without a partner, by hand."""

import io

import numpy as np
import pytest
from rich.console import Console

from ld_runtime.cluster_nms import distance_iou
from ld_runtime.coco import AveragePrecision
from ld_runtime.detections import Detections
from ld_runtime.errors import ParityError
from ld_runtime.parity import BoxAgreement, box_iou, compare_detections, match_boxes
from ld_runtime.parity_report import ParityReport, Tolerance


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    array = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(array[:, :4].astype(np.float32), array[:, 4].astype(np.float32), array[:, 5].astype(np.int64))


def compare(reference: Detections, candidate: Detections, *, most: int = 100) -> BoxAgreement:
    return compare_detections([reference], [candidate], score_threshold=0.05, max_detections=most, iou_threshold=0.6)


def causes(agreement: BoxAgreement) -> list[tuple[str, str]]:
    return [(box.side, box.cause) for box in agreement.unmatched]


BOX = (0, 0, 100, 100)


def test_iou_by_hand() -> None:
    first, second = (
        np.array([BOX], np.float32),
        np.array([[50, 0, 150, 100], [200, 0, 300, 9], [7, 7, 7, 7]], np.float32),
    )
    np.testing.assert_allclose(box_iou(first, second), [[1 / 3, 0, 0]])
    assert box_iou(first[:0], second).shape == (0, 3)


def test_equal_sides_agree() -> None:
    one = detections((*BOX, 0.9, 0), (200, 200, 260, 260, 0.5, 1))
    agreement = compare(one, one)
    assert (agreement.images, agreement.reference_boxes, agreement.candidate_boxes) == (1, 2, 2)
    assert (agreement.matched_pairs, agreement.matched_share) == (2, 1.0)
    assert (agreement.max_score_difference, agreement.max_box_difference_px) == (0.0, 0.0)
    assert agreement.unmatched == ()


def test_differences_by_hand() -> None:
    # The second pair: 0.25 px of 60: IoU 59.75 / 60 = 0.9958.
    agreement = compare(
        detections((*BOX, 0.75, 0), (200, 200, 260, 260, 0.5, 1)),
        detections((*BOX, 0.875, 0), (200, 200, 259.75, 260, 0.5, 1)),
    )
    assert agreement.matched_pairs == 2
    assert agreement.max_score_difference == 0.125
    assert agreement.mean_score_difference == 0.0625
    assert agreement.max_box_difference_px == 0.25


@pytest.mark.parametrize(("x2", "matched"), [(99.01, True), (99.0, True), (98.99, False)])
def test_the_match_threshold_is_inclusive(x2: float, matched: bool) -> None:
    pairs = match_boxes(detections((*BOX, 0.9, 0)), detections((0, 0, x2, 100, 0.9, 0)), iou=0.99)
    assert bool(pairs) == matched


def test_another_class_is_no_match() -> None:
    agreement = compare(detections((*BOX, 0.9, 0)), detections((*BOX, 0.9, 1)))
    assert agreement.matched_share == 0
    assert causes(agreement) == [("reference", "unexplained"), ("candidate", "unexplained")]


def test_matching_is_one_to_one() -> None:
    agreement = compare(detections((*BOX, 0.9, 0)), detections((*BOX, 0.9, 0), (*BOX, 0.8, 0)))
    assert agreement.matched_pairs == 1
    assert agreement.matched_share == pytest.approx(2 / 3)
    assert [(box.side, box.score) for box in agreement.unmatched] == [("candidate", pytest.approx(0.8))]


def test_the_best_iou_goes_first_and_then_the_nearest_score() -> None:
    # Reference 0 fits both, best the second; reference 1 fits the first alone well enough.
    reference = detections((0, 0, 100, 100, 0.9, 0), (0, 0, 99.2, 100, 0.8, 0))
    candidate = detections((0, 0, 99.5, 100, 0.9, 0), (0, 0, 100, 100, 0.8, 0))
    assert sorted(match_boxes(reference, candidate)) == [(0, 1), (1, 0)]
    twins = detections((*BOX, 0.9, 0), (*BOX, 0.6, 0))
    assert match_boxes(twins, detections((*BOX, 0.61, 0))) == [(1, 0)]
    assert sorted(match_boxes(twins, twins)) == [(0, 0), (1, 1)]


def test_cause_score_threshold() -> None:
    for score, cause in ((0.0509, "score_threshold"), (0.0511, "unexplained")):
        agreement = compare(detections((*BOX, 0.9, 0), (300, 0, 350, 50, score, 0)), detections((*BOX, 0.9, 0)))
        assert causes(agreement) == [("reference", cause)]
    assert agreement.matched_share == pytest.approx(2 / 3)


def test_cause_max_detections() -> None:
    reference = detections((*BOX, 0.9, 0), (300, 0, 350, 50, 0.5005, 0))
    candidate = detections((*BOX, 0.9, 0), (300, 200, 350, 250, 0.5, 1))
    assert causes(compare(reference, candidate, most=2)) == [
        ("reference", "max_detections"),
        ("candidate", "max_detections"),
    ]
    # The lists are not full.
    assert causes(compare(reference, candidate, most=3)) == [("reference", "unexplained"), ("candidate", "unexplained")]
    # Full, but the score is no near miss.
    better = detections((*BOX, 0.9, 0), (300, 0, 350, 50, 0.51, 0))
    assert causes(compare(better, candidate, most=2))[0] == ("reference", "unexplained")


def test_cause_tie() -> None:
    reference = detections((*BOX, 0.9, 0), (300, 0, 350, 50, 0.5, 0), (320, 0, 370, 50, 0.5, 0))
    candidate = detections((*BOX, 0.9, 0), (300, 0, 350, 50, 0.5, 0))
    assert causes(compare(reference, candidate)) == [("reference", "tie")]
    other_class = detections((*BOX, 0.9, 0), (320, 0, 370, 50, 0.5, 0), (300, 0, 350, 50, 0.5, 1))
    assert causes(compare(other_class, detections((*BOX, 0.9, 0), (300, 0, 350, 50, 0.5, 1)))) == [
        ("reference", "unexplained")
    ]


@pytest.mark.parametrize(
    ("shift", "score", "cause"),
    [
        (21.5, 0.5, "iou_threshold"),
        (15.0, 0.5, "unexplained"),  # D 0.695: clearly suppressed, so it should not be there
        (21.5, 0.95, "unexplained"),  # better than the other side's box, which cannot have suppressed it
    ],
)
def test_cause_iou_threshold(shift: float, score: float, cause: str) -> None:
    d = distance_iou(np.array([BOX, (shift, 0, 100 + shift, 100)], np.float32))[0, 1]
    assert (abs(d - 0.6) <= 1e-2) == (shift == 21.5)
    rows = sorted([(*BOX, 0.9, 0), (shift, 0, 100 + shift, 100, score, 0)], key=lambda row: -row[4])
    assert causes(compare(detections(*rows), detections((*BOX, 0.9, 0)))) == [("reference", cause)]


@pytest.mark.parametrize(("x2", "cause"), [(98.9, "vote"), (90.1, "vote"), (89.9, "unexplained")])
def test_cause_vote(x2: float, cause: str) -> None:
    agreement = compare(detections((*BOX, 0.9, 0)), detections((0, 0, x2, 100, 0.9, 0)))
    assert causes(agreement) == [("reference", cause), ("candidate", cause)]


def test_unmatched_boxes_name_their_image_and_class() -> None:
    empty, one = Detections.empty(), detections((*BOX, 0.9, 3))
    agreement = compare_detections(
        [empty, one], [empty, empty], score_threshold=0.05, max_detections=9, iou_threshold=0.6
    )
    (box,) = agreement.unmatched
    assert (box.image, box.side, box.label, box.cause) == (1, "reference", 3, "unexplained")
    assert agreement.images == 2


def test_comparing_nothing_fails() -> None:
    rule = {"score_threshold": 0.05, "max_detections": 9, "iou_threshold": 0.6}
    for nothing in ([], [Detections.empty()] * 3):
        with pytest.raises(ParityError, match="comparing nothing proves nothing"):
            compare_detections(nothing, nothing, **rule)
    with pytest.raises(ParityError, match="cannot compare 1 images with 2"):
        compare_detections([Detections.empty()], [Detections.empty()] * 2, **rule)


def ap_of(value: float | None) -> AveragePrecision:
    return AveragePrecision(value, value, value, None, None, None, {"cell": value})


GOOD = compare(detections((*BOX, 0.9, 0)), detections((*BOX, 0.9, 0)))
BAD = compare(detections((*BOX, 0.9, 0)), detections((0, 0, 98.9, 100, 0.9, 0)))


@pytest.mark.parametrize(
    ("deployed_ap", "agreement", "failure"),
    [
        (0.5, GOOD, None),
        (0.5 + 0.000199, GOOD, None),
        (0.5 - 0.000199, GOOD, None),
        (0.5 + 0.000201, GOOD, r"AP differs by \+0.0002"),
        (0.5 - 0.000201, GOOD, r"AP differs by -0.0002"),
        (0.5, BAD, "0.0000% of the boxes match, wanted are 99.9000%"),
        (None, GOOD, "there is no AP"),
    ],
)
def test_verdict(deployed_ap: float | None, agreement: BoxAgreement, failure: str | None) -> None:
    report = ParityReport("pytorch", {"pytorch": ap_of(0.5), "a.onnx": ap_of(deployed_ap)}, {"a.onnx": agreement})
    assert report.passed == (failure is None)
    if failure:
        with pytest.raises(AssertionError, match=failure):
            raise AssertionError(report.failures()[0])


def test_a_report_on_nothing_does_not_pass() -> None:
    assert not ParityReport("pytorch", {"pytorch": ap_of(0.5)}, {}).passed


def test_report_as_json_and_table() -> None:
    report = ParityReport(
        "pytorch",
        {"pytorch": ap_of(0.5), "a.onnx": ap_of(0.4)},
        {"a.onnx": BAD},
        tolerance=Tolerance(max_ap_difference=0.2, min_matched_share=0.0),
        beside={"mmdet pipeline": ap_of(0.45)},
        ap_interval={"a.onnx": (-0.2, 0.05)},
    )
    content = report.content()
    assert content["passed"] is True
    assert content["ap_difference"] == {"a.onnx": pytest.approx(-0.1)}
    assert content["agreement"]["a.onnx"]["unmatched"][0]["cause"] == "vote"
    assert content["beside"]["mmdet pipeline"]["ap"] == 0.45
    assert content["ap_interval"] == {"a.onnx": [-0.2, 0.05]}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.table())
    text = console.export_text()
    assert "passed" in text
    assert "vote 2" in text
    assert "-0.2000" in text
    assert "+0.0500" in text
    assert "not judged" in text
