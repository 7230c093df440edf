"""What a report is made from, typed: each class is one kind of file that a command of ld-deploy leaves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Point = tuple[float, float]
PYTORCH = "PyTorch"  # the backend of a reference that is no file; `bench --against` and `verify` call it so


@dataclass(frozen=True)
class ModelKey:
    """What is measured: a file and what runs it. An older JSON may not say the last two: they are empty then."""

    sha256: str
    backend: str = ""
    precision: str = ""

    def fits(self, other: ModelKey) -> bool:
        """Whether both are the same file, run the same way as far as both say."""
        pairs = ((self.backend, other.backend), (self.precision, other.precision))
        return bool(self.sha256) and self.sha256 == other.sha256 and all(a == b or not (a and b) for a, b in pairs)


@dataclass(frozen=True)
class Accuracy:
    """AP of one source, 0-1; None where there is none."""

    ap: float | None
    ap50: float | None = None
    ap75: float | None = None
    per_class: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Interval:
    """An AP difference, 0-1, with the 95 % interval of a paired bootstrap over images where there is one."""

    ap: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Judged:
    """One deployed file beside its reference.

    Args:
        name: as its JSON and record call it.
        key: which file, run by what.
        accuracy: its own.
        difference: its AP minus the reference's.
        matched_share: boxes of both sides in pairs, 0-1; None where boxes were not compared.
        max_score_shift: over the pairs, 0-1.
        max_box_shift_px: of one coordinate over the pairs, in pixels of the original image.
        causes: boxes without a partner, by cause.
        explanation: what `verify --explain` says, as it stands in the JSON; None without it.
        failures: what is past its tolerance, in words; None where nothing was judged.
        label: as the page calls it: no other file on the page has it.
    """

    name: str
    key: ModelKey
    accuracy: Accuracy
    difference: Interval | None = None
    matched_share: float | None = None
    max_score_shift: float | None = None
    max_box_shift_px: float | None = None
    causes: Mapping[str, int] = field(default_factory=dict)
    explanation: Any = None
    failures: tuple[str, ...] | None = None
    label: str = ""


@dataclass(frozen=True)
class Parity:
    """AP of deployed files and of what they are compared with: `ld-deploy verify` or `precision-report`.

    Args:
        path: the JSON.
        model: what was trained or exported, in a word; no other on the page has it.
        reference: its name in JSON and record.
        reference_key: which file it is; its sha256 is a checkpoint's where the reference is PyTorch.
        reference_accuracy: of the reference.
        files: the deployed files.
        beside: shown and not judged.
        split: of the data set.
        data: which images, in words: what AP may be compared with.
        record: the record of detections beside it, if it is there.
        machine: where it ran.
        command: what makes it again.
        detail: what tells it from another parity of a model with the same name; "" where there is none.
    """

    path: Path
    model: str
    reference: str
    reference_key: ModelKey
    reference_accuracy: Accuracy
    files: tuple[Judged, ...]
    beside: Mapping[str, Accuracy]
    split: str
    data: str
    record: Path | None
    machine: Mapping[str, Any]
    command: str
    detail: str = ""

    def label(self, source: str) -> str:
        """What the page calls a source of the JSON or the record: PyTorch and mmdet by their model too."""
        labels = {one.name: one.label for one in self.files}
        if source in labels:
            return labels[source]
        if self.reference_key.backend == PYTORCH:
            return f"{source} · {self.model}"
        return ", ".join(filter(None, (source, self.detail)))


@dataclass(frozen=True)
class Span:
    """Latency of one span, in ms. `quantiles` are (percent of the runs, ms), ascending."""

    mean_ms: float
    median_ms: float
    p90_ms: float
    p99_ms: float
    n: int
    quantiles: tuple[Point, ...]


@dataclass(frozen=True)
class Timed:
    """One runner of a benchmark. `size_mb` of its file, 10^6 bytes; None where that is not known."""

    name: str
    key: ModelKey
    is_file: bool
    spans: Mapping[str, Span]
    fps: float
    size_mb: float | None = None


@dataclass(frozen=True)
class Bench:
    """One `ld-deploy bench`: runners that took turns on the same images."""

    path: Path
    timed: tuple[Timed, ...]
    images: int
    stable: bool | None
    machine: Mapping[str, Any]
    command: str


@dataclass(frozen=True)
class RecommendedPoint:
    """A file and what runs it, measured by `ld-deploy recommend`.

    Args:
        name: `FILE[@BACKEND[:PRECISION]]`.
        key: which file, run by what.
        quality: AP or agreement, 0-1.
        median_ms: file to boxes.
        p90_ms: likewise.
        on_front: no other point beats it.
        command: that detects with it.
    """

    name: str
    key: ModelKey
    quality: float
    median_ms: float
    p90_ms: float
    on_front: bool
    command: str


@dataclass(frozen=True)
class Recommendation:
    """One `ld-deploy recommend`.

    Args:
        path: the JSON.
        word: what quality is: `AP` or `agreement`.
        points: that were measured.
        take: name of the one to take; None where none is within the budget.
        advice: in a sentence.
        images: how many.
        machine: where it ran.
        command: what makes it again.
    """

    path: Path
    word: str
    points: tuple[RecommendedPoint, ...]
    take: str | None
    advice: str
    images: int
    machine: Mapping[str, Any]
    command: str


@dataclass(frozen=True)
class TrainingPicture:
    """What the explanation hook drew: `kind` is `regions` or `edges`."""

    path: Path
    kind: str
    epoch: int
    image: int


@dataclass(frozen=True)
class Training:
    """The log of a work dir, over epochs: (epoch, value) by name.

    Args:
        name: of its folder.
        folder: the work dir.
        losses: each term, and `loss`, their sum.
        loss_shares: of each term in the sum, 0-1.
        gradient_shares: of each term in the sum of the gradients' norms, 0-1.
        val_ap: AP on val, 0-1.
        pictures: that it drew.
    """

    name: str
    folder: Path
    losses: Mapping[str, tuple[Point, ...]]
    loss_shares: Mapping[str, tuple[Point, ...]]
    gradient_shares: Mapping[str, tuple[Point, ...]]
    val_ap: tuple[Point, ...]
    pictures: tuple[TrainingPicture, ...]


@dataclass(frozen=True)
class Recipe:
    """One row of a comparison: AP by seed, 0-1."""

    name: str
    val_ap: tuple[float, ...]
    test_ap: tuple[float, ...]


@dataclass(frozen=True)
class Comparison:
    """One `ld-deploy compare`."""

    path: Path
    name: str
    teacher_ap: float
    recipes: tuple[Recipe, ...]
    machine: Mapping[str, Any]
    command: str


@dataclass(frozen=True)
class Material:
    """All that was found.

    Args:
        parities: with AP.
        benches: with times.
        trainings: with curves.
        comparisons: of recipes.
        recommendations: of files and engines.
        verdicts: sentences that a run already says of itself.
    """

    parities: tuple[Parity, ...] = ()
    benches: tuple[Bench, ...] = ()
    trainings: tuple[Training, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    recommendations: tuple[Recommendation, ...] = ()
    verdicts: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.parities or self.benches or self.trainings or self.comparisons or self.recommendations)
