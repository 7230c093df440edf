"""AP and times of the same model, joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    """The rows that no other beats in AP and time both, fastest first. Of equals, all."""
    known = [row for row in rows if row.accuracy.ap is not None and row.milliseconds is not None]

    def beaten(row: Row) -> bool:
        ap, ms = row.accuracy.ap or 0.0, row.milliseconds or 0.0
        return any(
            (other.accuracy.ap or 0.0) >= ap
            and (other.milliseconds or 0.0) <= ms
            and ((other.accuracy.ap or 0.0) > ap or (other.milliseconds or 0.0) < ms)
            for other in known
        )

    return sorted((row for row in known if not beaten(row)), key=lambda row: row.milliseconds or 0.0)
