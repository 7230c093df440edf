"""Which of several measured choices are worth taking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Qualities are compared as they are shown: one that is higher by less than a tenth of an AP point is not higher.
DECIMALS = 3
# What `take` gives up in quality for speed, where no budget says otherwise: one AP point.
LOSS = 0.01


@dataclass(frozen=True)
class Choice:
    """A model file and what runs it, measured.

    Args:
        name: `FILE[@BACKEND[:PRECISION]]`.
        latency_ms: median, file to detections.
        spread_ms: how far the run's own latencies lie apart; differences up to it are no differences.
        quality: COCO AP or agreement, 0 to 1.
    """

    name: str
    latency_ms: float
    spread_ms: float
    quality: float

    @property
    def shown(self) -> float:
        """The quality in the decimals that count."""
        return round(self.quality, DECIMALS)


def front(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other beats: at least as good and faster beyond the spread, or as fast and better.

    Returns:
        By latency, the fastest first.
    """
    kept = [one for one in choices if beaten_by(one, choices) is None]
    return sorted(kept, key=lambda one: one.latency_ms)


def beaten_by(one: Choice, choices: Sequence[Choice]) -> Choice | None:
    """The first of the choices that beats this one."""
    return next((other for other in choices if _beats(other, one)), None)


def faster(one: Choice, other: Choice) -> bool:
    """Whether one is faster than the other by more than the larger of their spreads."""
    return one.latency_ms < other.latency_ms - max(one.spread_ms, other.spread_ms)


def take(
    choices: Sequence[Choice], *, max_latency_ms: float | None = None, min_quality: float | None = None
) -> Choice | None:
    """The choice that a budget leaves.

    Args:
        choices: those to choose from, one or more.
        max_latency_ms: of the median.
        min_quality: from 0 to 1.

    Returns:
        Of those within the budgets that no other of them beats: with a latency budget the best, with a quality budget
        alone the fastest, with neither the fastest that loses at most `LOSS` against the best. None where nothing is
        within the budgets.
    """
    within = [one for one in choices if max_latency_ms is None or one.latency_ms <= max_latency_ms]
    if min_quality is not None:
        within = [one for one in within if one.quality >= min_quality]
    if not within:
        return None
    kept = front(within)
    best = max(kept, key=lambda one: (one.shown, -one.latency_ms))
    if max_latency_ms is not None:
        return best
    if min_quality is None:
        kept = [one for one in kept if one.shown >= round(best.shown - LOSS, DECIMALS)]
    return kept[0]


def _beats(other: Choice, one: Choice) -> bool:
    better, as_good = other.shown > one.shown, other.shown >= one.shown
    return (faster(other, one) and as_good) or (not faster(one, other) and better)
