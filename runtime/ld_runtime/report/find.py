"""What is in a run: files are known by their content, not by their names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import DataError, InputError
from ld_runtime.report.material import Material
from ld_runtime.report.naming import with_models, with_names
from ld_runtime.report.readers import (
    read_bench,
    read_comparison,
    read_demo_report,
    read_parity,
    read_precision_report,
    read_recommendation,
)
from ld_runtime.report.training_logs import LOG, read_training

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ld_runtime.report.material import Bench, Comparison, Parity, Recommendation, Training

LARGEST = 64 * 2**20  # bytes: a larger JSON is a data set's
LOOKED_FOR = (
    "a work dir of `ld-deploy train` (TIMESTAMP/vis_data/scalars.json), or the JSON of `ld-deploy verify`, `bench`, "
    "`recommend`, `compare`, `precision-report` or `demo`"
)


def find_material(runs: Sequence[Path]) -> Material:
    """Reads everything of use in some folders and files.

    Args:
        runs: folders, which are searched with all below them, and JSON files.

    Raises:
        InputError: One is not there, or there is nothing of use in any of them.
        DataError: A file that was recognised is damaged.
    """
    if missing := [str(run) for run in runs if not run.exists()]:
        raise InputError(f"there is no {', '.join(missing)}: give folders of runs, or JSON files")
    parities: list[Parity] = []
    benches: list[Bench] = []
    comparisons: list[Comparison] = []
    recommendations: list[Recommendation] = []
    inside: list[tuple[Path, dict[str, Any]]] = []
    verdicts: dict[str, None] = {}
    files = dict.fromkeys(path.absolute() for run in runs for path in json_files(run))
    for path in files:
        content = _content(path)
        try:
            match kind_of(content):
                case "verify":
                    parities.append(read_parity(content, path))
                case "precision-report":
                    parities += read_precision_report(content, path)
                case "bench":
                    benches.append(read_bench(content, path))
                case "compare":
                    comparisons.append(read_comparison(content, path))
                case "recommend":
                    recommendations.append(read_recommendation(content, path))
                case "demo":
                    verdicts |= dict.fromkeys(content["verdicts"])
                    inside.append((path, content))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            message = f"{path} looks like a JSON of `ld-deploy {kind_of(content)}` and is not whole"
            raise DataError(f"{message} ({type(error).__name__}: {error}): make it again, or leave it out") from error
    for path, content in inside:
        more, timed = read_demo_report(content, path)
        parities += more
        benches += timed
    named = with_names(_once(parities, key=_same_parity))
    timed_once = _once(benches, key=lambda one: tuple((timed.name, timed.fps) for timed in one.timed))
    found = Material(
        parities=tuple(named),
        benches=tuple(with_models(timed_once, named)),
        trainings=tuple(find_trainings(runs)),
        comparisons=tuple(_once(comparisons, key=lambda one: (one.name, one.recipes))),
        recommendations=tuple(_once(recommendations, key=lambda one: one.points)),
        verdicts=tuple(verdicts),
    )
    if not found:
        message = f"nothing to report in {', '.join(map(str, runs))} ({len(files)} JSON files looked at)"
        raise InputError(f"{message}; a report is made from {LOOKED_FOR}")
    return found


def kind_of(content: Any) -> str | None:
    """Which command wrote a content; None where it is none that a report is made from."""
    if not isinstance(content, dict):
        return None
    signs = {
        "verify": {"reference", "ap", "ap_difference", "agreement"},
        "bench": {"measurements", "machine", "settings"},
        "precision-report": {"files", "models_sha256"},
        "recommend": {"points", "take", "advice"},
        "compare": {"comparison", "rows", "runs"},
        "demo": {"verdicts", "stages"},
    }
    return next((kind for kind, keys in signs.items() if keys <= content.keys()), None)


def json_files(run: Path) -> Iterator[Path]:
    """The JSON files of a run that may be something: no logs, none too large, none in hidden folders."""
    if run.is_file():
        yield run
        return
    for folder, below, names_here in os.walk(run):
        below[:] = sorted(one for one in below if not one.startswith("."))
        for name in sorted(names_here):
            path = Path(folder, name)
            if path.suffix == ".json" and Path(folder).name != "vis_data" and path.stat().st_size <= LARGEST:
                yield path


def find_trainings(runs: Sequence[Path]) -> list[Training]:
    """The trainings below some folders, each under its folder's name, or a longer one where two have the same."""
    folders: dict[Path, None] = {}
    for run in runs:
        for below, inside, _ in os.walk(run):
            inside.sort()
            if Path(below, LOG).is_file():
                folders[Path(below).absolute().parent] = None
    names_of = {folder: folder.name for folder in folders}
    for folder in folders:
        if list(names_of.values()).count(folder.name) > 1:
            names_of[folder] = f"{folder.parent.name}/{folder.name}"
    found = (read_training(folder, name=name) for folder, name in names_of.items())
    return [one for one in found if one is not None]


def _same_parity(one: Parity) -> tuple[object, ...]:
    """Of the same run, whether its JSON was found by itself or inside a demo's."""
    return (one.path.suffix, one.reference, one.reference_accuracy.ap, *(file.name for file in one.files), one.split)


def _content(path: Path) -> Any:
    """Of a JSON file, or of the stage of a demo that it is; None where it is no JSON."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    is_stage = isinstance(content, dict) and {"summary", "content", "key"} <= content.keys()
    return content["content"] if is_stage else content


def _once(found: Sequence[Any], *, key: Any) -> list[Any]:
    """The first of those that say the same."""
    return list({key(one): one for one in reversed(found)}.values())[::-1]
