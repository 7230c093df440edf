"""The front of quality and latency, and what budgets leave of it, by hand."""

import pytest

from ld_runtime.pareto import Choice, beaten_by, faster, front, take

FAST, MIDDLE, BEST = Choice("fast", 5, 0.5, 0.480), Choice("middle", 10, 0.5, 0.500), Choice("best", 20, 0.5, 0.510)
ALL = (BEST, FAST, MIDDLE, Choice("beaten", 21, 0.5, 0.505))


def names(*rows: tuple[str, float, float, float]) -> list[str]:
    return [one.name for one in front([Choice(*row) for row in rows])]


def test_front() -> None:
    assert names() == []
    assert names(("a", 10, 1, 0.5)) == ["a"]
    assert names(("slow", 20, 1, 0.6), ("fast", 10, 1, 0.5)) == ["fast", "slow"]
    assert names(("slow", 20, 1, 0.5), ("fast", 10, 1, 0.5)) == ["fast"]  # equal AP: the faster
    assert names(("slow", 20, 1, 0.5), ("fast", 10, 1, 0.6)) == ["fast"]


def test_within_the_spread_latencies_are_equal() -> None:
    assert names(("a", 10, 1, 0.5), ("b", 10.5, 0.1, 0.5)) == ["a", "b"]  # neither beats the other
    assert names(("a", 10, 1, 0.5), ("b", 11, 1, 0.6)) == ["b"]  # exactly the spread: no difference
    assert names(("a", 10, 1, 0.5), ("b", 11.1, 1, 0.6)) == ["a", "b"]
    assert names(("a", 10, 1, 0.5), ("b", 11, 1, 0.5)) == ["a", "b"]
    assert not faster(Choice("a", 10, 0.1, 0.5), Choice("b", 11, 1, 0.5))
    assert faster(Choice("a", 10, 0.1, 0.5), Choice("b", 11.01, 1, 0.5))


def test_a_quality_counts_in_tenths_of_a_point() -> None:
    assert names(("slow", 20, 1, 0.5004), ("fast", 10, 1, 0.4996)) == ["fast"]
    assert names(("slow", 20, 1, 0.501), ("fast", 10, 1, 0.500)) == ["fast", "slow"]


def test_who_beats_it() -> None:
    assert beaten_by(ALL[3], ALL) is BEST
    assert beaten_by(BEST, ALL) is None


@pytest.mark.parametrize(
    ("max_latency_ms", "min_quality", "name"),
    [
        (None, None, "middle"),  # 0.500 is exactly one point below 0.510
        (10, None, "middle"),  # exactly the budget
        (9.99, None, "fast"),
        (100, None, "best"),
        (4.99, None, None),
        (None, 0.480, "fast"),
        (None, 0.481, "middle"),
        (None, 0.511, None),
        (100, 0.480, "best"),
        (15, 0.510, None),
    ],
)
def test_take(max_latency_ms: float | None, min_quality: float | None, name: str | None) -> None:
    taken = take(ALL, max_latency_ms=max_latency_ms, min_quality=min_quality)
    assert (taken.name if taken else None) == name


def test_take_without_a_budget_gives_up_one_point_and_no_more() -> None:
    taken = take([BEST, Choice("below", 10, 0.5, 0.499)])
    assert taken is BEST


def test_what_is_taken_is_beaten_by_nothing_within_the_budget() -> None:
    noisy = [Choice("a", 6, 9, 0.507), Choice("b", 13, 9, 0.509)]
    assert take(noisy) is noisy[1]
    assert take(noisy, max_latency_ms=10) is noisy[0]
