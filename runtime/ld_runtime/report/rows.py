"""AP and times of the same model, joined."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ld_runtime.pareto import Choice, beaten_by
from ld_runtime.report.material import PYTORCH, Accuracy, Interval, ModelKey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.material import Bench, Material, Timed


@dataclass(frozen=True)
class Row:
    """A model: what is known of its AP, and of its time.

    Args:
        name: as the page calls the file or the reference.
        key: which file, run by what.
        data: the images of its AP; rows of other images cannot be compared with it.
        accuracy: on those.
        is_file: it is deployed, and no reference in PyTorch.
        difference: AP minus the reference's; None for the reference.
        failures: what is past its tolerance; None where nothing was judged.
        timed: None where it was not timed.
        reference: the same weights in PyTorch, timed by the same benchmark; None without.
    """

    name: str
    key: ModelKey
    data: str
    accuracy: Accuracy
    is_file: bool
    difference: Interval | None = None
    failures: tuple[str, ...] | None = None
    timed: Timed | None = None
    reference: Timed | None = None

    @property
    def runs_in(self) -> str:
        """Engine and precision, as far as they are known."""
        return " ".join(filter(None, (self.key.backend if self.is_file else PYTORCH, self.key.precision)))

    @property
    def milliseconds(self) -> float | None:
        """File to boxes, median."""
        return self.timed.spans["end_to_end"].median_ms if self.timed else None

    @property
    def speed(self) -> float | None:
        """How many times as fast as the same weights in PyTorch, by medians of one benchmark."""
        if self.timed is None or self.reference is None:
            return None
        return self.reference.spans["end_to_end"].median_ms / self.timed.spans["end_to_end"].median_ms


def join_rows(material: Material) -> list[Row]:
    """One row for each AP and each benchmark of it, then what was timed only."""
    rows: list[Row] = []
    used: set[int] = set()

    def add(row: Row, *, reference: ModelKey | None = None) -> None:
        fitting = [(bench, one) for bench in material.benches for one in bench.timed if row.key.fits(one.key)]
        used.update(id(one) for _, one in fitting)
        rows.extend(
            replace(
                row,
                key=row.key if row.key.backend else one.key,
                timed=one,
                reference=None if reference is None else _timed(bench, reference),
            )
            for bench, one in fitting
        )
        if not fitting:
            rows.append(row)

    for parity in material.parities:
        key = parity.reference_key
        in_pytorch = key.backend == PYTORCH
        add(Row(parity.label(parity.reference), key, parity.data, parity.reference_accuracy, is_file=not in_pytorch))
        for name, accuracy in parity.beside.items():
            beside = ModelKey(key.sha256, name, key.precision)
            add(Row(parity.label(name), beside, parity.data, accuracy, is_file=False))
        for one in parity.files:
            row = Row(
                one.label,
                one.key,
                parity.data,
                one.accuracy,
                is_file=True,
                difference=one.difference,
                failures=one.failures,
            )
            add(row, reference=key if in_pytorch else None)
    rows += [
        Row(one.name, one.key, "", Accuracy(None), is_file=one.is_file, timed=one)
        for bench in material.benches
        for one in bench.timed
        if id(one) not in used
    ]
    return rows


def _timed(bench: Bench, key: ModelKey) -> Timed | None:
    return next((one for one in bench.timed if key.fits(one.key)), None)


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
