"""AP and times of the same model, joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ld_runtime.pareto import Choice, beaten_by
from ld_runtime.report.material import Accuracy, Interval, ModelKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.material import Bench, Material, Timed


@dataclass(frozen=True)
class Row:
    """A model: what is known of its AP, and of its time.

    Args:
        name: of the file or the reference.
        key: which file, run by what.
        data: the images of its AP; rows of other images cannot be compared with it.
        accuracy: on those.
        difference: AP minus the reference's; None for the reference.
        matched_share: boxes in pairs with the reference's.
        timed: None where it was not timed.
        bench: where it was.
    """

    name: str
    key: ModelKey
    data: str
    accuracy: Accuracy
    difference: Interval | None = None
    matched_share: float | None = None
    timed: Timed | None = None
    bench: Bench | None = None

    @property
    def milliseconds(self) -> float | None:
        """File to boxes, median."""
        return self.timed.spans["end_to_end"].median_ms if self.timed else None


def join_rows(material: Material) -> list[Row]:
    """One row for each AP and each benchmark of it, then what was timed only."""
    rows: list[Row] = []
    used: set[int] = set()

    def add(name: str, key: ModelKey, data: str, accuracy: Accuracy, **more: object) -> None:
        fitting = [(bench, one) for bench in material.benches for one in bench.timed if key.fits(one.key)]
        used.update(id(one) for _, one in fitting)
        pairs: list[tuple[Bench | None, Timed | None]] = [*fitting] or [(None, None)]
        for bench, one in pairs:
            full = one.key if one is not None and not key.backend else key
            rows.append(Row(name, full, data, accuracy, timed=one, bench=bench, **more))  # type: ignore[arg-type]

    for parity in material.parities:
        add(parity.reference, parity.reference_key, parity.data, parity.reference_accuracy)
        for one in parity.files:
            add(
                one.name,
                one.key,
                parity.data,
                one.accuracy,
                difference=one.difference,
                matched_share=one.matched_share,
            )
    for bench in material.benches:
        rows += [
            Row(one.name, one.key, "", Accuracy(None), timed=one, bench=bench)
            for one in bench.timed
            if id(one) not in used
        ]
    return rows


def pareto_front(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other beats in AP and time, as `ld-deploy recommend` compares them; fastest first."""
    timed = [(row, row.accuracy.ap, row.milliseconds) for row in rows]
    choices = [
        (row, Choice(row.name, latency_ms=ms, spread_ms=0.0, quality=ap))
        for row, ap, ms in timed
        if ap is not None and ms is not None
    ]
    everyone = [choice for _, choice in choices]
    front = [(choice.latency_ms, row) for row, choice in choices if beaten_by(choice, everyone) is None]
    return [row for _, row in sorted(front, key=lambda one: one[0])]
