"""Which of several measured choices are worth taking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Choice:
    """A model file and what runs it, measured.

    Args:
        name: `FILE[@BACKEND[:PRECISION]]`.
        latency_ms: median, file to detections.
        spread_ms: how far the run's own latencies lie apart; differences below it are no differences.
        ap: COCO AP, 0 to 1.
    """

    name: str
    latency_ms: float
    spread_ms: float
    ap: float


def front(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other beats: at least as good in AP and faster beyond the spread, or as fast and better in AP.

    Returns:
        By latency, the fastest first.
    """
    kept = [one for one in choices if not any(_beats(other, one) for other in choices)]
    return sorted(kept, key=lambda one: one.latency_ms)


def _beats(other: Choice, one: Choice) -> bool:
    margin = max(other.spread_ms, one.spread_ms)
    faster = other.latency_ms < one.latency_ms - margin
    not_slower = other.latency_ms <= one.latency_ms + margin
    return (faster and other.ap >= one.ap) or (not_slower and other.ap > one.ap)
