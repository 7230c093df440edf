"""The NMS on the host, numpy and native: by hand, by properties, against a plain loop, against published outputs."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import ld_runtime
from ld_runtime.cluster_nms import Backend, distance_iou, keep_fixed_point
from ld_runtime.errors import ConfigError, InputError
from tests.runtime.native_cases import needs_native

ORACLES = Path(__file__).parent.parent / "oracles"
F32, I64 = np.float32, np.int64
NO_VOTES = float(np.nextafter(F32(1), F32(0)))  # only a box itself, with D = 1, is above it
Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]

chosen: Backend = "numpy"


@pytest.fixture(scope="module", params=["numpy", pytest.param("native", marks=needs_native)], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with both."""
    global chosen  # noqa: PLW0603 - hypothesis takes no fixture of a module as an argument
    chosen = request.param
    yield
    chosen = "numpy"


def cluster_diou_nms(*rows: NDArray[Any], **options: Any) -> Arrays:
    return ld_runtime.cluster_diou_nms(*rows, backend=chosen, **options)


def arrays(*rows: tuple[float, float, float, float, float, int]) -> Arrays:
    """Rows of x1 y1 x2 y2 score label."""
    boxes = np.array([row[:4] for row in rows], F32).reshape(-1, 4)
    return boxes, np.array([row[4] for row in rows], F32), np.array([row[5] for row in rows], I64)


def test_d_by_hand() -> None:
    # Two 10 x 10 boxes, 5 apart in x: inner 50, union 150, IoU 1/3. Centres 5 apart: rho^2 = 25. Enclosing 15 x 10:
    # c^2 = 325. (25 / 325)^0.8 = 0.128494; D = 0.333333 - 0.128494.
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], F32)
    d = distance_iou(boxes)
    assert d[0, 1] == pytest.approx(1 / 3 - (25 / 325) ** 0.8, abs=1e-6)
    assert d[0, 0] == 1
    # Apart: IoU 0; rho^2 = 20^2 + 20^2 = 800, c^2 = 30^2 + 30^2 = 1800.
    assert d[0, 2] == pytest.approx(-((800 / 1800) ** 0.8), abs=1e-6)
    # Exponent 1 is the plain DIoU.
    assert distance_iou(boxes, distance_exponent=1.0)[0, 1] == pytest.approx(1 / 3 - 25 / 325, abs=1e-6)
    np.testing.assert_array_equal(d, d.T)


def test_vote_of_two_boxes_by_hand() -> None:
    # 100 x 100 boxes, 4 apart in x: IoU 96/104 = 0.923077; rho^2 = 16; c^2 = 104^2 + 100^2 = 20816;
    # D = 0.923077 - (16 / 20816)^0.8 = 0.919880 > 0.6: the second falls, > 0.7: it votes with
    # w = exp(-(1 - D)^2 / 0.025) * 0.4 = 0.773585 * 0.4; the first has w = 0.8.
    d = 96 / 104 - (16 / 20816) ** 0.8
    weight = math.exp(-((1 - d) ** 2) / 0.025) * 0.4
    shift = 4 * weight / (0.8 + weight)
    boxes, scores, labels = cluster_diou_nms(*arrays((0, 0, 100, 100, 0.8, 3), (4, 0, 104, 100, 0.4, 3)))
    np.testing.assert_allclose(boxes, [[shift, 0, 100 + shift, 100]], atol=1e-4)
    assert shift == pytest.approx(1.1155, abs=1e-3)
    np.testing.assert_array_equal(scores, np.array([0.8], F32))  # voting does not change scores
    np.testing.assert_array_equal(labels, [3])


def test_a_suppressed_box_does_not_suppress() -> None:
    # A chain: a kills b, b alone would kill c. c stays, and is no cluster of a's.
    chain = arrays((0, 0, 100, 100, 0.9, 0), (20, 0, 120, 100, 0.8, 0), (40, 0, 140, 100, 0.7, 0))
    d = distance_iou(chain[0])
    assert d[0, 1] > 0.6
    assert d[1, 2] > 0.6
    assert d[0, 2] < 0.6
    boxes, scores, _ = cluster_diou_nms(*chain)
    np.testing.assert_array_equal(scores, np.array([0.9, 0.7], F32))
    np.testing.assert_allclose(boxes, chain[0][[0, 2]], rtol=1e-6)  # D(0, 1) = 0.62 is below the vote threshold


def test_a_kept_box_takes_no_vote_from_a_better_one() -> None:
    # With iou_threshold 0.99 both stay; D = 0.92 > 0.7, so the second votes for the first, never the other way.
    boxes, _, _ = cluster_diou_nms(*arrays((0, 0, 100, 100, 0.8, 0), (4, 0, 104, 100, 0.4, 0)), iou_threshold=0.99)
    np.testing.assert_allclose(boxes[1], [4, 0, 104, 100], rtol=1e-6)
    assert boxes[0, 0] > 1


def test_classes_are_compared_as_integers() -> None:
    same_place = arrays((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 1), (0, 0, 10, 10, 0.7, 0))
    boxes, scores, labels = cluster_diou_nms(*same_place)
    np.testing.assert_array_equal(labels, [0, 1])
    np.testing.assert_array_equal(scores, np.array([0.9, 0.8], F32))
    np.testing.assert_allclose(boxes, [[0, 0, 10, 10]] * 2, rtol=1e-6)


@pytest.mark.parametrize(("threshold", "kept"), [("below", 1), ("at", 2), ("above", 2)])
def test_iou_threshold_is_strict(threshold: str, kept: int) -> None:
    rows = arrays((0, 0, 10, 10, 0.9, 0), (2, 0, 12, 10, 0.8, 0))
    d = distance_iou(rows[0])[0, 1]
    value = {"below": np.nextafter(d, F32(-1)), "at": d, "above": np.nextafter(d, F32(2))}[threshold]
    assert len(cluster_diou_nms(*rows, iou_threshold=float(value))[0]) == kept


@pytest.mark.parametrize(("threshold", "moved"), [("below", True), ("at", False), ("above", False)])
def test_vote_threshold_is_strict(threshold: str, moved: bool) -> None:
    rows = arrays((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0))
    d = distance_iou(rows[0])[0, 1]
    value = {"below": np.nextafter(d, F32(-1)), "at": d, "above": np.nextafter(d, F32(2))}[threshold]
    boxes = cluster_diou_nms(*rows, vote_threshold=float(value))[0]
    assert (boxes[0, 0] > 0) == moved


@pytest.mark.parametrize(("score", "kept"), [(0.0499, 0), (0.05, 0), (0.0501, 1)])
def test_score_threshold_is_strict(score: float, kept: int) -> None:
    assert len(cluster_diou_nms(*arrays((0, 0, 10, 10, score, 0)), score_threshold=0.05)[0]) == kept


NAN, INF = float("nan"), float("inf")
PADDING = [
    (0, 0, 100, 100, 0.0, -1),
    (0, 0, 100, 100, -1.0, 0),
    (0, 0, 100, 100, NAN, 0),
    (NAN, 0, 100, 100, 0.99, 0),
    (0, NAN, 100, NAN, 0.99, 0),
    (100, 0, 0, 100, 0.99, 0),  # inverted
    (0, 100, 100, 0, 0.99, 0),
    (50, 0, 50, 100, 0.99, 0),  # no width
    (0, 50, 100, 50, 0.99, 0),  # no height
    (0, 0, 0, 0, 0.0, -1),
]


@pytest.mark.parametrize("row", PADDING)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_is_out_does_nothing_wherever_it_stands(
    row: tuple[float, float, float, float, float, int], at: int
) -> None:
    rows = [(0, 0, 100, 100, 0.8, 0), (4, 0, 104, 100, 0.4, 0)]
    expected = cluster_diou_nms(*arrays(*rows))
    rows.insert(at, row)
    for got, want in zip(cluster_diou_nms(*arrays(*rows)), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_ties_go_to_the_lower_index() -> None:
    rows = [(0, 0, 100, 100, 0.5, 0), (1, 0, 101, 100, 0.5, 0)]
    first = cluster_diou_nms(*arrays(*rows), vote_threshold=NO_VOTES)[0]
    swapped = cluster_diou_nms(*arrays(*reversed(rows)), vote_threshold=NO_VOTES)[0]
    np.testing.assert_allclose(first, [[0, 0, 100, 100]], rtol=1e-6)
    np.testing.assert_allclose(swapped, [[1, 0, 101, 100]], rtol=1e-6)


def test_identical_boxes_are_one() -> None:
    boxes, scores, _ = cluster_diou_nms(*arrays(*[(3, 4, 50, 60, 0.5, 0)] * 5))
    np.testing.assert_allclose(boxes, [[3, 4, 50, 60]], rtol=1e-6)
    np.testing.assert_array_equal(scores, [0.5])


@pytest.mark.parametrize(("most", "kept"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_max_detections(most: int, kept: int) -> None:
    rows = [(i * 50, 0, i * 50 + 10, 10, 0.5 + i / 10, i) for i in range(3)]
    boxes, scores, labels = cluster_diou_nms(*arrays(*rows), max_detections=most)
    np.testing.assert_array_equal(labels, [2, 1, 0][:kept])
    assert boxes.shape == (kept, 4)
    assert scores.shape == (kept,)


def test_nothing_in_nothing_out() -> None:
    boxes, scores, labels = cluster_diou_nms(*arrays())
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))
    assert (boxes.dtype, scores.dtype, labels.dtype) == (F32, F32, I64)


def test_wrong_shapes_are_refused() -> None:
    boxes, scores, labels = arrays((0, 0, 1, 1, 0.5, 0))
    with pytest.raises(InputError, match=r"got \(1, 4\), \(2,\), \(1,\)"):
        cluster_diou_nms(boxes, np.array([0.5, 0.5], F32), labels)
    with pytest.raises(InputError, match="max_detections"):
        cluster_diou_nms(boxes, scores, labels, max_detections=-1)
    with pytest.raises(ConfigError, match="backend must be native, numpy or None, got 'cuda'"):
        ld_runtime.cluster_diou_nms(boxes, scores, labels, backend="cuda")  # type: ignore[arg-type]


def test_an_infinite_box_touches_nobody() -> None:
    rows = [(0, 0, 100, 100, 0.8, 0), (4, 0, 104, 100, 0.4, 0), (0, 0, 100, 100, 0.3, 1)]
    expected = cluster_diou_nms(*arrays(*rows))
    got = cluster_diou_nms(*arrays((-INF, 0, INF, 100, 0.9, 0), *rows))
    np.testing.assert_array_equal(got[1][1:], expected[1])
    np.testing.assert_array_equal(got[0][1:], expected[0])


# ---- properties -----------------------------------------------------------------------------------------------------


@st.composite
def candidates(draw: st.DrawFn, *, distinct_scores: bool = True) -> Arrays:
    """Crowded boxes of few classes: half of them near another one, so that suppression and votes happen."""
    count = draw(st.integers(0, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    corners = rng.uniform(0, 60, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 60, (count, 2))], axis=1)
    for index in range(1, count, 2):
        boxes[index] = boxes[rng.integers(index)] + rng.normal(0, 2, 4)
    steps = rng.permutation(1000)[:count] if distinct_scores else rng.integers(0, 4, count) * 200
    return boxes.astype(F32), ((steps + 1) / 1001).astype(F32), rng.integers(0, 3, count)


def sequential(rows: Arrays, *, iou_threshold: float = 0.6, vote_threshold: float = 0.7) -> list[tuple[float, ...]]:
    """Greedy DIoU-NMS and voting, one box after the other in float64: (x1, y1, x2, y2, score, label)."""

    def d(a: list[float], b: list[float]) -> float:
        width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
        height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        inner = width * height
        union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner
        rho2 = ((a[0] + a[2] - b[0] - b[2]) ** 2 + (a[1] + a[3] - b[1] - b[3]) ** 2) / 4
        c2 = (max(a[2], b[2]) - min(a[0], b[0])) ** 2 + (max(a[3], b[3]) - min(a[1], b[1])) ** 2
        return inner / union - (rho2 / (c2 + 1e-7)) ** 0.8

    boxes, scores, labels = (part.tolist() for part in rows)
    order = [i for i in range(len(boxes)) if scores[i] > 0.05]
    order = [i for i in order if boxes[i][2] > boxes[i][0] and boxes[i][3] > boxes[i][1]]
    order.sort(key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in order:
        if all(labels[k] != labels[i] or d(boxes[k], boxes[i]) <= iou_threshold for k in kept):
            kept.append(i)
    found = []
    for k in kept:
        total, mean = 0.0, [0.0] * 4
        for j in order[order.index(k) :]:
            near = 1.0 if j == k else d(boxes[k], boxes[j])
            if labels[j] == labels[k] and near > vote_threshold:
                weight = math.exp(-((1 - near) ** 2) / 0.025) * scores[j]
                total += weight
                mean = [m + weight * side for m, side in zip(mean, boxes[j], strict=True)]
        found.append((*(m / total for m in mean), scores[k], labels[k]))
    return found


def near_a_threshold(boxes: NDArray[np.float32]) -> bool:
    """Whether float32 and float64 may decide differently."""
    d = distance_iou(boxes)
    return bool((np.abs(d - 0.6) < 1e-5).any() or (np.abs(d - 0.7) < 1e-5).any())


@settings(max_examples=150, deadline=None)
@given(candidates(distinct_scores=False) | candidates())
def test_equals_the_sequential_loop(rows: Arrays) -> None:
    valid = (rows[0][:, 2] > rows[0][:, 0]) & (rows[0][:, 3] > rows[0][:, 1])
    if near_a_threshold(rows[0][valid]):
        return
    boxes, scores, labels = cluster_diou_nms(*rows)
    expected = sequential(rows)
    assert len(boxes) == len(expected)
    if expected:
        np.testing.assert_allclose(boxes, [row[:4] for row in expected], atol=1e-3)
        np.testing.assert_allclose(scores, [row[4] for row in expected])
        np.testing.assert_array_equal(labels, [row[5] for row in expected])


@settings(max_examples=60, deadline=None)
@given(candidates(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(rows: Arrays, random: object) -> None:
    order = list(range(len(rows[0])))
    random.shuffle(order)
    shuffled = tuple(part[order] for part in rows)
    for got, want in zip(cluster_diou_nms(*shuffled), cluster_diou_nms(*rows), strict=True):
        np.testing.assert_array_equal(got, want)


@settings(max_examples=60, deadline=None)
@given(candidates())
def test_what_classes_are_called_does_not_matter(rows: Arrays) -> None:
    boxes, scores, labels = rows
    names = np.array([70, 3, 11])
    got, want = cluster_diou_nms(boxes, scores, names[labels]), cluster_diou_nms(*rows)
    np.testing.assert_array_equal(got[0], want[0])
    np.testing.assert_array_equal(got[1], want[1])
    np.testing.assert_array_equal(got[2], names[want[2]])


@settings(max_examples=60, deadline=None)
@given(candidates())
def test_what_is_kept_is_kept_again(rows: Arrays) -> None:
    once = cluster_diou_nms(*rows, vote_threshold=NO_VOTES)
    twice = cluster_diou_nms(*once, vote_threshold=NO_VOTES)
    for got, want in zip(twice, once, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_long_chain_reaches_its_fixed_point() -> None:
    # Each suppresses the next: every other one stays, and only as many passes as the chain is long settle it.
    chain = np.eye(40, k=1, dtype=bool)
    np.testing.assert_array_equal(keep_fixed_point(chain), np.arange(40) % 2 == 0)


# ---- the published code ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle() -> dict[str, NDArray[np.float32]]:
    with np.load(ORACLES / "cluster_nms.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    ("scene", "tolerance_px"), [("small", 2e-3), ("mid", 2e-3), ("crowd", 2e-3), ("dense", 0.02), ("capped", 0.02)]
)
def test_published_scenes(oracle: dict[str, NDArray[np.float32]], scene: str, tolerance_px: float) -> None:
    # Candidates above the threshold in the order of the published code: prior by prior, class by class.
    index, labels = oracle[f"{scene}.prior"], oracle[f"{scene}.label"]
    score_threshold, iou_threshold, most = oracle[f"{scene}.cfg"]
    boxes, scores, found = cluster_diou_nms(
        oracle[f"{scene}.boxes"][index],
        oracle[f"{scene}.score"],
        labels.astype(I64),
        iou_threshold=float(iou_threshold),
        score_threshold=float(score_threshold),
        max_detections=int(most),
    )
    expected = oracle[f"{scene}.dets"]
    np.testing.assert_array_equal(found, oracle[f"{scene}.labels"])
    np.testing.assert_allclose(boxes, expected[:, :4], atol=tolerance_px, rtol=0)
    np.testing.assert_array_equal(scores, expected[:, 4])


@pytest.mark.parametrize("exponent", [1.0, 0.8, 0.6])
def test_published_d(oracle: dict[str, NDArray[np.float32]], exponent: float) -> None:
    a, b = oracle["A"], oracle["B"]
    d = distance_iou(np.concatenate([a, b]), distance_exponent=exponent)[: len(a), len(a) :]
    np.testing.assert_allclose(d, oracle[f"diou_b{exponent}"], atol=1e-6, rtol=0)


def test_published_failures_are_not_ours(oracle: dict[str, NDArray[np.float32]]) -> None:
    # Boxes without area: the published fixed point never settles and returns NaN. Here they are out.
    boxes = oracle["degenerate.boxes"]
    got = cluster_diou_nms(boxes, oracle["degenerate.scores"][:, 0], np.zeros(3, I64))
    # The best is a point; of the other two, 1 px apart, the better one stays, between both.
    np.testing.assert_array_equal(got[1], oracle["degenerate.scores"][1:2, 0])
    assert 0 < got[0][0, 0] < 1
    np.testing.assert_allclose(got[0][0, 1:], [0, 50, 50], rtol=1e-6)
    # Two classes 4000 px apart: the published offset merges them into one box. Here both stay where they are.
    boxes = oracle["collide.boxes"]
    got = cluster_diou_nms(boxes, oracle["collide.scores"].max(axis=1), np.array([0, 1]))
    np.testing.assert_array_equal(got[0], boxes)
    np.testing.assert_array_equal(got[2], [0, 1])
    # A high class id costs the published offset precision. Here it costs none.
    rows = (oracle["prec.boxes"], np.array([0.9, 0.5], F32))
    np.testing.assert_array_equal(
        cluster_diou_nms(*rows, np.array([79, 79]))[0], cluster_diou_nms(*rows, np.array([0, 0]))[0]
    )
