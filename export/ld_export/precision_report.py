"""AP of one detector's files in several precisions, and of each against the first: what a precision costs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ld_export.quantize_images import labelled_of_config
from ld_runtime.bench_report import list_sha256, machine, sha256_of
from ld_runtime.detector import Detector
from ld_runtime.engines import names_of
from ld_runtime.errors import ConfigError
from ld_runtime.paired_ap import Difference, MatchedImages, paired_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from ld_runtime.engines import ModelSpec

Split = Literal["val", "test"]


@dataclass(frozen=True)
class FileAp:
    """A file on one split.

    Args:
        name: file, and backend where it was named.
        backend: what ran it.
        precision: of its network.
        split: of the config.
        images: in it.
        ap: 0-1.
        difference: to the first file.
    """

    name: str
    backend: str
    precision: str
    split: Split
    images: int
    ap: float
    difference: Difference


@dataclass(frozen=True)
class PrecisionReport:
    """Files by splits, in the order they were given, and what a reader needs to measure again."""

    files: tuple[FileAp, ...]
    facts: dict[str, Any]

    def content(self) -> dict[str, Any]:
        """One JSON object."""
        head = {"kind": "ld_deploy.precision_report", "schema_version": 1}
        return {**head, "files": [asdict(one) for one in self.files], **self.facts}

    def table(self) -> Table:
        """AP in points, and the difference with its interval."""
        from rich.table import Table

        table = Table()
        for column in ("file", "precision", "split", "AP", "against the first", "95 %"):
            table.add_column(column, justify="left" if column in ("file", "precision", "split") else "right")
        for one in self.files:
            difference = one.difference
            table.add_row(
                f"{one.name} ({one.backend})",
                one.precision,
                f"{one.split}, {one.images}",
                f"{100 * one.ap:.2f}",
                f"{100 * difference.ap:+.2f}",
                f"{100 * difference.low:+.2f} to {100 * difference.high:+.2f}",
            )
        return table


def precision_report(
    config: str,
    *,
    models: Sequence[ModelSpec],
    splits: Sequence[Split] = ("val", "test"),
    threads: int | None = None,
    progress: Callable[[str, int], Callable[[], object]] = lambda _name, _total: lambda: None,
) -> PrecisionReport:
    """Measures AP of files on the splits of a training config, each from the image files on.

    Args:
        config: its data sets are used.
        models: files, and what is to run them; the first is what the others are compared with.
        splits: of the config.
        threads: CPU threads; None takes every core.
        progress: called with a name and a number of images before each run; what it returns is called per image.

    Raises:
        ConfigError: No file, or the config cannot be used.
        DataError: A data set cannot be used.
        EngineError: A file cannot be run.
    """
    if not models:
        raise ConfigError("name at least one file: ld-deploy precision-report CONFIG student.onnx student.int8.onnx")
    rows = []
    hashes = {}
    for split in splits:
        labelled = labelled_of_config(config, split=split)
        hashes[split] = list_sha256(labelled.paths)
        first: MatchedImages | None = None
        for name, spec in zip(names_of(models), models, strict=True):
            detector = Detector(spec.path, backend=spec.backend, precision=spec.precision, threads=threads)
            advance = progress(f"{name}, {split}", len(labelled.paths))
            found = []
            for image_id, path in zip(labelled.image_ids, labelled.paths, strict=True):
                found += detector(path).to_coco(image_id=image_id, category_ids=labelled.category_ids)
                advance()
            matched = MatchedImages(labelled.document, found)
            first = first or matched
            facts = detector.engine.facts
            rows.append(
                FileAp(
                    name=name,
                    backend=facts.backend,
                    precision=facts.precision,
                    split=split,
                    images=matched.images,
                    ap=matched.ap(),
                    difference=paired_difference(matched, first),
                )
            )
    facts_of_run = {
        "config": config,
        "images_sha256": hashes,
        "models_sha256": {name: sha256_of(spec.path) for name, spec in zip(names_of(models), models, strict=True)},
        "machine": machine(),
    }
    return PrecisionReport(tuple(rows), facts_of_run)
