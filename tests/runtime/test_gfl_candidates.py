"""The decode of a GFL head: the numpy twin by hand and against published detections, the host library against both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ld_runtime import native
from ld_runtime.cluster_nms import Backend, cluster_diou_nms
from ld_runtime.errors import InputError
from ld_runtime.gfl_candidates import gfl_candidates
from ld_runtime.model_card import CandidateRule, NmsSettings
from tests.runtime.native_cases import needs_native

if TYPE_CHECKING:
    from numpy.typing import NDArray

ORACLES = Path(__file__).parents[1] / "oracles"
F32 = np.float32
NAN, INF = float("nan"), float("inf")
OFF = -20.0  # a logit that is below every threshold here


class Maps(NamedTuple):
    """Of each level of a batch: class logits (N, C, h, w) and edge logits (N, 4 * bins, h, w)."""

    class_logits: list[NDArray[np.float32]]
    edge_logits: list[NDArray[np.float32]]

    def image(self, index: int) -> Maps:
        return Maps(*([one[index] for one in kind] for kind in self))


def random_maps(
    seed: int, *, sizes: tuple[tuple[int, int], ...] = ((6, 9), (3, 5)), batch: int = 1, classes: int = 3, bins: int = 5
) -> Maps:
    rng = np.random.default_rng(seed)
    return Maps(
        [rng.normal(-2.5, 2, (batch, classes, *hw)).astype(F32) for hw in sizes],
        [rng.normal(0, 2, (batch, 4 * bins, *hw)).astype(F32) for hw in sizes],
    )


def assert_native_is_the_twin(maps: Maps, *, strides: tuple[int, ...], rule: CandidateRule, threshold: float) -> int:
    expected = gfl_candidates(*maps, strides=strides, rule=rule, score_threshold=threshold)
    found = native.gfl_candidates(*maps, strides=strides, rule=rule, score_threshold=threshold)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[2], expected[2])
    np.testing.assert_allclose(found[0], expected[0], atol=2e-6 * max(strides) * 16, rtol=1e-6)
    return len(expected[1])


# ---- by hand --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["numpy", pytest.param("native", marks=needs_native)])
def candidates(request: pytest.FixtureRequest) -> Any:
    """Both have the same arguments."""
    return {"numpy": gfl_candidates, "native": native.gfl_candidates}[request.param]


def one_hot_edges(*distances: int, bins: int = 5, hw: tuple[int, int] = (2, 3)) -> NDArray[np.float32]:
    """Every location has the same distances, in strides."""
    edges = np.full((4, bins, *hw), -200, F32)
    for side, bin_ in enumerate(distances):
        edges[side, bin_] = 0
    return edges.reshape(-1, *hw)


def test_one_location_by_hand(candidates: Any) -> None:
    logits = np.full((2, 2, 3), OFF, F32)
    logits[1, 1, 2] = 1.5  # class 1 at row 1, column 2: prior (2 * 8, 1 * 8) = (16, 8)
    edges = one_hot_edges(1, 0, 2, 3)  # 16 - 8, 8 - 0, 16 + 16, 8 + 24 -> clipped to the canvas of 24 x 16
    boxes, scores, labels = candidates([logits], [edges], strides=[8], rule=CandidateRule(), score_threshold=0.05)
    np.testing.assert_array_equal(boxes, [[8, 8, 24, 16]])
    np.testing.assert_allclose(scores, [1 / (1 + math.exp(-1.5))], rtol=1e-7)
    np.testing.assert_array_equal(labels, [1])
    assert (boxes.dtype, scores.dtype, labels.dtype) == (F32, F32, np.int64)


def test_expectation_by_hand(candidates: Any) -> None:
    # Left: probabilities 3/4 and 1/4 of the bins 0 and 2 -> 0.5 strides. Top: uniform over 0..4 -> 2 strides.
    logits = np.full((1, 20, 20), OFF, F32)
    logits[0, 10, 10] = 0
    edges = np.full((4, 5, 20, 20), -200, F32)
    edges[0, 0], edges[0, 2] = math.log(3), 0
    edges[1] = 7
    edges[2:, 4] = 0
    boxes = candidates([logits], [edges.reshape(20, 20, 20)], strides=[16], rule=CandidateRule(), score_threshold=0.05)[
        0
    ]
    np.testing.assert_allclose(boxes, [[160 - 8, 160 - 32, 160 + 64, 160 + 64]], rtol=1e-6)


def test_order_and_cuts_by_hand(candidates: Any) -> None:
    # Two levels, of 2 x 3 and 1 x 2 locations, two classes. Equal logits: lower level, then lower location, then class.
    fine, coarse = np.full((2, 2, 3), OFF, F32), np.full((2, 1, 2), OFF, F32)
    fine[1, 0, 1] = fine[0, 0, 1] = fine[1, 0, 0] = 1  # (location 1, class 1), (1, 0), (0, 1)
    fine[0, 1, 2] = 2
    coarse[0, 0, 1] = 1
    coarse[1, 0, 0] = 3
    maps: Any = [fine, coarse], [one_hot_edges(0, 0, 1, 1), one_hot_edges(0, 0, 1, 1, hw=(1, 2))]

    def corners(**cuts: int) -> list[tuple[float, float, float, int]]:
        rule = CandidateRule(**cuts)
        boxes, _, labels = candidates(*maps, strides=[8, 16], rule=rule, score_threshold=0.05)
        return [(*box[:3].tolist(), label) for box, label in zip(boxes, labels.tolist(), strict=True)]

    best = [(0, 0, 16, 1), (16, 8, 24, 0), (0, 0, 8, 1), (8, 0, 16, 0), (8, 0, 16, 1), (16, 0, 24, 0)]
    assert corners() == best
    assert corners(pre_nms_top_k=4) == best[:4]
    assert corners(per_level_top_k=2) == [best[i] for i in (0, 1, 2, 5)]
    assert corners(per_level_top_k=1) == best[:2]
    assert corners(per_level_top_k=0) == []
    assert corners(pre_nms_top_k=0) == []


@pytest.mark.parametrize("threshold", [0.0, 0.05, 0.5, 0.999])
def test_score_threshold_is_strict(candidates: Any, threshold: float) -> None:
    # Neighbouring floats around the logit of the threshold: in when the float32 sigmoid is above it.
    middle = F32(math.log(threshold / (1 - threshold))) if threshold else F32(-103.972)
    steps = np.arange(-200, 201, dtype=np.int32)
    logits = (np.full(401, middle).view(np.int32) + steps).view(F32) if middle else steps.astype(F32) * F32(3e-9)
    scores = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(F32)
    expected = np.sort(scores[scores > F32(threshold)])[::-1]
    assert 0 < len(expected) < 401
    edges = one_hot_edges(0, 0, 1, 1, hw=(1, 401))
    found = candidates(
        [logits.reshape(1, 1, 401)], [edges], strides=[8], rule=CandidateRule(), score_threshold=threshold
    )
    np.testing.assert_array_equal(found[1], expected)


@pytest.mark.parametrize(("threshold", "count"), [(-1.0, 7), (0.0, 5), (1.0, 0), (2.0, 0)])
def test_logits_that_are_no_numbers(candidates: Any, threshold: float, count: int) -> None:
    logits = np.array([NAN, INF, -INF, 0, 100, -100, -0.0, -1e30], F32).reshape(1, 1, 8)
    maps = [logits], [one_hot_edges(0, 0, 1, 1, hw=(1, 8))]
    boxes, scores, _ = candidates(*maps, strides=[8], rule=CandidateRule(), score_threshold=threshold)
    assert len(scores) == count
    # Infinity, 100, then 0 and -0, which are equal: the lower location first.
    np.testing.assert_array_equal(boxes[:4, 0], [8, 32, 24, 48][:count])


@pytest.mark.parametrize("value", [NAN, INF])
def test_edges_that_are_no_numbers_make_no_detection(candidates: Any, value: float) -> None:
    logits = np.zeros((1, 2, 3), F32)
    edges = one_hot_edges(0, 0, 1, 1)
    edges[7, 1, 1] = value  # bin 2 of the top side at one location
    boxes, scores, labels = candidates([logits], [edges], strides=[8], rule=CandidateRule(), score_threshold=0.05)
    assert np.isnan(boxes[4, 1])
    assert np.isfinite(np.delete(boxes, 4, axis=0)).all()
    assert len(cluster_diou_nms(boxes, scores, labels)[1]) == 5


def test_nothing_above_the_threshold(candidates: Any) -> None:
    logits, edges = np.full((3, 2, 3), OFF, F32), one_hot_edges(1, 1, 1, 1)
    boxes, scores, labels = candidates([logits], [edges], strides=[8], rule=CandidateRule(), score_threshold=0.05)
    assert (boxes.shape, scores.shape, labels.shape) == ((0, 4), (0,), (0,))


# ---- native against the twin ----------------------------------------------------------------------------------------


@needs_native
@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 90), st.integers(1, 5), st.integers(1, 18)),
    cuts=st.tuples(st.integers(0, 40) | st.just(1000), st.integers(0, 60) | st.just(1000)),
    threshold=st.sampled_from([-1.0, 0.0, 0.02, 0.05, 0.5, 0.99]),
    ties=st.booleans(),
)
def test_equals_the_twin(
    seed: int, shape: tuple[int, int, int, int], cuts: tuple[int, int], threshold: float, ties: bool
) -> None:
    height, width, classes, bins = shape
    sizes = ((height, width), (-(-height // 2), -(-width // 2)), (1, 1))
    maps = random_maps(seed, sizes=sizes, classes=classes, bins=bins)
    if ties:
        maps = Maps([np.round(one) for one in maps.class_logits], maps.edge_logits)
    assert_native_is_the_twin(maps.image(0), strides=(8, 16, 32), rule=CandidateRule(*cuts), threshold=threshold)


@needs_native
def test_large_maps() -> None:
    sizes = ((100, 168), (50, 84), (25, 42), (13, 21), (7, 11))
    maps = random_maps(0, sizes=sizes, classes=10, bins=17).image(0)
    for threshold in (0.0, 0.05, 0.99):  # every pair, many, a few
        count = assert_native_is_the_twin(maps, strides=(8, 16, 32, 64, 128), rule=CandidateRule(), threshold=threshold)
        assert count == 1000 if threshold < 0.9 else 0 < count < 1000


@needs_native
def test_equal_logits_everywhere_on_a_large_map() -> None:
    # More ties than are kept at a time: which are the lowest indices is not forgotten on the way.
    logits, edges = np.zeros((6, 50, 70), F32), one_hot_edges(1, 1, 1, 1, hw=(50, 70))
    rule = CandidateRule(per_level_top_k=100, pre_nms_top_k=50)
    assert assert_native_is_the_twin(Maps([logits], [edges]), strides=(8,), rule=rule, threshold=0.05) == 50


# ---- detections -----------------------------------------------------------------------------------------------------


@needs_native
def test_detections_of_a_batch_are_the_twins_padded() -> None:
    maps = random_maps(4, sizes=((12, 20), (6, 10)), batch=4)
    for one in maps.class_logits:
        one[2] = OFF
    nms, rule = NmsSettings(score_threshold=0.3, max_detections=40), CandidateRule(150, 200)
    found = native.gfl_detect(*maps, strides=[8, 16], nms=nms, candidates=rule)
    assert found.boxes.shape == (4, 40, 4)
    for image in range(4):
        rows = gfl_candidates(*maps.image(image), strides=[8, 16], rule=rule, score_threshold=0.3)
        boxes, scores, labels = cluster_diou_nms(*rows, score_threshold=0.3, max_detections=40, backend="numpy")
        count = len(scores)
        assert found.num_detections[image] == count
        assert count == (0 if image == 2 else 40)
        np.testing.assert_allclose(found.boxes[image, :count], boxes, atol=1e-3)
        np.testing.assert_array_equal(found.scores[image, :count], scores)
        np.testing.assert_array_equal(found.labels[image, :count], labels)
        assert not found.boxes[image, count:].any()
        assert not found.scores[image, count:].any()
        assert (found.labels[image, count:] == -1).all()
    kinds = found.num_detections.dtype, found.boxes.dtype, found.scores.dtype, found.labels.dtype
    assert kinds == (np.int32, F32, F32, np.int64)


@needs_native
def test_no_limit_is_no_limit_of_0() -> None:
    maps = random_maps(4, sizes=((12, 20), (6, 10)))
    rule, nms = CandidateRule(2**31, 2**32), NmsSettings(score_threshold=0.3, max_detections=500)
    assert assert_native_is_the_twin(maps.image(0), strides=(8, 16), rule=rule, threshold=0.3) > 100
    rows = gfl_candidates(*maps.image(0), strides=[8, 16], rule=rule, score_threshold=0.3)
    found = native.gfl_detect(*maps, strides=[8, 16], nms=nms, candidates=rule)
    unlimited = cluster_diou_nms(*rows, score_threshold=0.3, max_detections=2**32, backend="native")
    assert 0 < found.num_detections[0] == len(unlimited[1]) < 500


@pytest.mark.parametrize("nms", ["numpy", pytest.param("native", marks=needs_native)])
def test_published_detections(candidates: Any, nms: Backend) -> None:
    with np.load(ORACLES / "gfl_inference.npz") as file:
        arrays = {name: file[name] for name in file.files}
    maps = Maps(*([arrays[f"{part}.{level}"].astype(F32) for level in range(5)] for part in ("cls", "reg")))
    strides, rule = (8, 16, 32, 64, 128), CandidateRule(1000, 5000)
    for image, (height, width) in enumerate(arrays["img_shape"].tolist()):
        one = {"strides": strides, "rule": rule, "score_threshold": 0.05, "canvas_hw": (height, width)}
        boxes, scores, labels = cluster_diou_nms(*candidates(*maps.image(image), **one), backend=nms)
        expected = arrays[f"vote.pre1000.rescale0.{image}.dets"]
        same = arrays[f"vote.pre1000.rescale0.{image}.labels"][:, None] == labels
        same &= np.abs(expected[:, 4:] - scores) < 1e-5
        same &= np.abs(expected[:, None, :4] - boxes).max(axis=2) < 0.02
        assert len(scores) == len(expected) > 20
        assert same.any(axis=1).all()
        assert same.any(axis=0).all()


def transposed(one: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same values in another order of memory."""
    return one.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)


@needs_native
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda cls, edge: (cls[:1], edge), r"must be of the same levels, got 1, 2 and 2"),
        (lambda cls, edge: ([one[0] for one in cls], edge), r"need class logits \(N, C, h, w\)"),
        (lambda cls, edge: ([cls[0], cls[1][..., 0].copy()], [edge[0], edge[1][..., 0].copy()]), r"need class logits"),
        (lambda cls, edge: (cls, [one[:, :-1] for one in edge]), r"edge logits \(N, 4 \* \(reg_max"),
        (lambda cls, edge: (cls, [edge[0], edge[0]]), r"edge_logits\[1\] must be float32 \(1, 20, 3, 5\)"),
        (
            lambda cls, edge: ([cls[0], cls[1].astype(np.float16)], edge),
            r"class_logits\[1\] must be float32 \(1, 3, 3, 5\) in C order, got float16",
        ),
        (lambda cls, edge: ([transposed(cls[0]), cls[1]], edge), r"got float32 \(1, 3, 6, 9\), not contiguous"),
        (lambda cls, edge: ([one[:, :0] for one in cls], edge), r"need 1 to \d+ class logits"),
    ],
)
def test_maps_are_checked(change: Any, message: str) -> None:
    maps = change(*random_maps(0))
    with pytest.raises(InputError, match=message):
        native.gfl_detect(*maps, strides=[8, 16], nms=NmsSettings(), candidates=CandidateRule())
