"""The front of AP and latency, by hand."""

from ld_runtime.pareto import Choice, front


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
