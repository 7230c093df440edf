"""What a benchmark of training steps says: ratios turn by turn, a table, sentences and JSON."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ld_runtime.bench import Latency
from ld_runtime.bench_report import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from ld_deploy.bench_train import TrainBenchSettings, TrainMeasurement

# Variables that change the time of a step: of the threads, and of the C library's memory.
ENVIRONMENT = ("OMP_", "KMP_", "MKL_", "MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "CUDA_", "CUDNN_", "NVIDIA_TF32")


@dataclass(frozen=True)
class Ratio:
    """A span against the sum of others.

    Args:
        name: of the ratio.
        of: the span above the line.
        over: the spans below it, added.
        median: of the ratios of the turns: what one reads.
        p10: of the same.
        p90: of the same.
        of_medians: median of the span over the sum of the others' medians.
        over_ms: that sum of medians.
        difference_ms: median over the turns of span minus sum.
        n: turns.
    """

    name: str
    of: str
    over: tuple[str, ...]
    median: float
    p10: float
    p90: float
    of_medians: float
    over_ms: float
    difference_ms: float
    n: int

    @classmethod
    def between(cls, turns: Sequence[Mapping[str, float]], name: str, *, of: str, over: Sequence[str]) -> Ratio:
        """From the spans of each turn in ms."""
        above = np.array([turn[of] for turn in turns])
        parts = np.array([[turn[span] for span in over] for turn in turns])
        below = parts.sum(axis=1)
        p10, median, p90 = np.percentile(above / below, (10, 50, 90))
        over_ms = float(np.median(parts, axis=0).sum())
        return cls(
            name=name,
            of=of,
            over=tuple(over),
            median=float(median),
            p10=float(p10),
            p90=float(p90),
            of_medians=float(np.median(above)) / over_ms,
            over_ms=over_ms,
            difference_ms=float(np.median(above - below)),
            n=len(turns),
        )


def latencies(turns: Sequence[Mapping[str, float]]) -> dict[str, Latency]:
    """Distribution of each span."""
    return {span: Latency.of([turn[span] for turn in turns]) for span in turns[0]}


def ratios(turns: Sequence[Mapping[str, float]]) -> list[Ratio]:
    """The ratios that the spans allow.

    `ratio_to_bound` and `ours_to_mmdet`, also with each further precision of the teacher; `cached_to_student` and
    `mmdet_ratio_to_bound`.
    """
    prefix = "teacher_forward"
    wanted: list[tuple[str, str, tuple[str, ...]]] = [
        (f"ratio_to_bound{suffix}", f"distilled_step{suffix}", ("student_step", f"{prefix}{suffix}"))
        for suffix in (span.removeprefix(prefix) for span in sorted(turns[0]) if span.startswith(prefix))
    ]
    wanted += [
        ("cached_to_student", "distilled_step_cached", ("student_step",)),
        ("mmdet_ratio_to_bound", "mmdet_ld_step", ("mmdet_student_step", "mmdet_teacher_forward")),
    ]
    wanted += [
        (f"ours_to_mmdet{suffix}", f"distilled_step{suffix}", ("mmdet_ld_step",))
        for suffix in (span.removeprefix(prefix) for span in sorted(turns[0]) if span.startswith(prefix))
    ]
    return [Ratio.between(turns, name, of=of, over=over) for name, of, over in wanted if {of, *over} <= set(turns[0])]


def sentence(ratio: Ratio) -> str:
    """A ratio in words."""
    return (
        f"{ratio.name}: {ratio.of} is {ratio.median:.3f} of {' + '.join(ratio.over)} "
        f"(p10 {ratio.p10:.3f}, p90 {ratio.p90:.3f} over {ratio.n} turns; of medians {ratio.of_medians:.3f}; "
        f"{ratio.difference_ms:+.1f} ms)"
    )


def to_json_content(
    measurement: TrainMeasurement, *, config: str, settings: TrainBenchSettings, overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON file's content.

    `bound_ms` is the sum of the medians of student_step and teacher_forward, `distillation_terms_ms` the median over
    the turns of distilled_step - student_step - teacher_forward: derived, not measured.
    """
    found = ratios(measurement.turns)
    to_bound = next(ratio for ratio in found if ratio.name == "ratio_to_bound")
    batch = measurement.batch
    return {
        "schema_version": 1,
        "machine": machine(),
        "load_average": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(ENVIRONMENT)},
        "config": config,
        "overrides": dict(overrides),
        "settings": asdict(settings),
        "batch": {
            "data": batch.source,
            "input_shape": list(batch.inputs.shape),
            "ground_truth_boxes": batch.box_count,
        },
        "precision": settings.amp or "float32",
        "teacher_precisions": list(measurement.precisions),
        "recipe": measurement.recipe,
        "terms": list(measurement.terms),
        "learning_rate": 0,
        "warm_up": {name: {"runs": runs, "settled": ok} for name, (runs, ok) in measurement.warm_ups.items()},
        "losses": {name: dict(values) for name, values in measurement.losses.items()},
        "spans": {span: asdict(latency) for span, latency in latencies(measurement.turns).items()},
        "derived": {"bound_ms": to_bound.over_ms, "distillation_terms_ms": to_bound.difference_ms},
        "ratios": [asdict(ratio) for ratio in found],
        "without_mmdet": measurement.without_mmdet,
    }


def span_table(measurement: TrainMeasurement) -> Table:
    """Each span, and its median as a share of distilled_step's."""
    from rich.table import Table

    images = len(measurement.batch.inputs)
    restless = [name for name, (_, settled) in measurement.warm_ups.items() if not settled]
    found = Table(
        title=f"training step, {images} image{'s' if images > 1 else ''}",
        caption=f"not settled when the clock started: {', '.join(restless)}" if restless else None,
    )
    found.add_column("span", no_wrap=True)
    for heading in ("median ms", "p90", "p99", "n", "share"):
        found.add_column(heading, justify="right")
    spans = latencies(measurement.turns)
    for span, latency in spans.items():
        found.add_row(
            span,
            f"{latency.median_ms:.2f}",
            f"{latency.p90_ms:.2f}",
            f"{latency.p99_ms:.2f}",
            str(latency.n),
            f"{latency.median_ms / spans['distilled_step'].median_ms:.0%}",
        )
    return found
