"""Recipes side by side on one data set: same student, same schedule, several seeds; chosen on val, told on test."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from ld_deploy.ap import NAMES, ap_of
from ld_deploy.config import DISTILLED, load_config
from ld_deploy.train import evaluate, train
from ld_runtime.bench_report import machine
from ld_runtime.errors import ConfigError, DataError
from ld_runtime.files import write_text
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROW_KEYS = {"name", "student", "teacher", "recipe", "distill", "cross", "seeds"}
TOOLS = ("ld-deploy", "torch", "mmdet", "mmengine")


@dataclass(frozen=True)
class Row:
    """One recipe of a comparison.

    Args:
        name: in the table.
        student: path of the student's config.
        config: the same, with teacher and terms where the row has any.
        seeds: trainings.
    """

    name: str
    student: str
    config: Config
    seeds: int

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.name.lower())


@dataclass(frozen=True)
class Run:
    """A finished training.

    Args:
        row: name of its row.
        seed: of weights, order and augmentation.
        val: AP on the validation split, of the epoch chosen there: ap, ap50, ap75, 0 to 1.
        test: the same on the test split.
        elapsed_s: training and both evaluations, in the call that ended them.
        key: hash of the config, the seed, and the teacher's config and weights.
    """

    row: str
    seed: int
    val: dict[str, float]
    test: dict[str, float]
    elapsed_s: float
    key: str


def read_comparison(path: str | Path) -> list[Row]:
    """The rows of a comparison file.

    A config with `student` (path of a config), `teacher` (dict of `DistilledDetector`), `seeds`, and `rows`: a list of
    dict(name=..., distill=[terms]) that may replace any of the three, and have `recipe` and `cross`. A row without
    terms is trained alone.

    Raises:
        ConfigError: A key is missing or unknown, or a name stands twice.
    """
    source = load_config(path)
    missing = [key for key in ("student", "teacher", "rows") if key not in source]
    if missing:
        raise ConfigError(f"{path} is no comparison: it has no {missing[0]}; see configs/compare")
    rows = []
    for row in source.rows:
        unknown = set(row) - ROW_KEYS
        if unknown or "name" not in row:
            raise ConfigError(f"a row has name and may have {', '.join(sorted(ROW_KEYS))}; got {', '.join(row)}")
        student = row.get("student", source.student)
        config = Config(load_config(student).to_dict(), filename=student)
        if row.get("distill"):
            config.model.type = DISTILLED
            config.model.teacher = dict(row.get("teacher", source.teacher))
            config.model.update({key: row[key] for key in ("distill", "recipe", "cross") if key in row})
        rows.append(Row(row.name, student, config, row.get("seeds", source.get("seeds", 1))))
    slugs = [row.slug for row in rows]
    if len(set(slugs)) != len(slugs):
        raise ConfigError(f"two rows of {path} have the same name: {', '.join(row.name for row in rows)}")
    return rows


def compare(
    path: str | Path,
    *,
    work_dir: Path,
    only: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[Run]:
    """Trains every row and seed that is not there yet.

    Args:
        path: see `read_comparison`.
        work_dir: holds a JSON a run, `runs/ROW_seedN.json`; a second call with the same one goes on.
        only: parts of row names; empty: all rows.
        seeds: of each row, as far as it has them; None: all.
        tell: gets one line a run.

    Returns:
        The runs of the chosen rows and seeds.

    Raises:
        ConfigError: The comparison, a row's config or `only` cannot be used.
        LdDeployError: What `train` raises.
    """
    every = read_comparison(path)
    rows = [row for row in every if not only or any(part in row.name for part in only)]
    if not rows:
        names = [row.name for row in every]
        guess = nearest("".join(only[:1]), names) or ";"
        raise ConfigError(f"no row of {path} has {' or '.join(only)} in its name{guess} there are: {', '.join(names)}")
    plan = [(row, seed) for seed in range(max(row.seeds for row in rows)) for row in rows if seed < row.seeds]
    plan = [(row, seed) for row, seed in plan if seeds is None or seed in seeds]
    runs = []
    for place, (row, seed) in enumerate(plan):
        run, done_now = find_or_train(row, seed=seed, work_dir=work_dir)
        runs.append(run)
        state = f"{run.elapsed_s:.0f} s" if done_now else "was there"
        tell(
            f"[{place + 1}/{len(plan)}] {row.name}, seed {seed}: "
            f"AP {run.val['ap']:.3f} on val, {run.test['ap']:.3f} on test ({state})"
        )
    return runs


def find_or_train(row: Row, *, seed: int, work_dir: Path) -> tuple[Run, bool]:
    """The run that is there for the same config and teacher, or a new one; and whether it is new."""
    key = key_of(row, seed=seed)
    name = f"{row.slug}_seed{seed}"
    file = work_dir / "runs" / f"{name}.json"
    if file.is_file():
        try:
            known = Run(**json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DataError(f"{file} is damaged ({error}): delete it, and the run is made again") from error
        if known.key == key:
            return known, False
    folder = work_dir / name
    mark = folder / "key.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:  # what another config left
        shutil.rmtree(folder, ignore_errors=True)
        write_text(mark, key)
    start = perf_counter()
    overrides: dict[str, Any] = {"randomness.seed": seed, "experiment_name": name, "log_level": "WARNING"}
    if row.config.model.type == DISTILLED:  # without pictures: there are many runs, and they take time
        quiet = {"type": "ExplainDistillation", "images": 0, "gradient_interval": 0}
        overrides["custom_hooks"] = [*(row.config.get("custom_hooks") or []), quiet]
    best = train(row.config, work_dir=folder, resume=True, overrides=overrides)
    val, test = (
        ap_of(
            evaluate(
                row.config,
                best,
                work_dir=folder / split,
                split=split,
                overrides={"experiment_name": f"{name}_{split}", "log_level": "WARNING"},
            )
        )
        for split in ("val", "test")
    )
    run = Run(row.name, seed, val, test, perf_counter() - start, key)
    write_text(file, json.dumps(asdict(run), indent=1) + "\n")
    mark.unlink()  # without the JSON above the run starts anew: its checkpoints go
    for checkpoint in folder.glob("epoch_*.pth"):
        checkpoint.unlink()  # only the best one is worth its disk
    return run, True


def key_of(row: Row, *, seed: int) -> str:
    """Hash of config, seed, and the teacher's config and weights."""
    content = hashlib.sha256(json.dumps([row.config.to_dict(), seed], sort_keys=True, default=str).encode())
    teacher = row.config.model.get("teacher")
    if teacher:
        content.update(load_config(teacher.config).pretty_text.encode())
        if Path(teacher.checkpoint).is_file():
            content.update(Path(teacher.checkpoint).read_bytes())
    return content.hexdigest()[:16]


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One entry a row, in the order of the runs: mean and standard deviation over seeds (None for one seed), 0 to 1."""
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.row, []).append(run)
    return [
        {
            "name": name,
            "seeds": len(found),
            **{
                f"{split}_{metric}": {
                    "mean": statistics.fmean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "each": values,
                }
                for split in ("val", "test")
                for metric in NAMES
                for values in [[getattr(run, split)[metric] for run in found]]
            },
        }
        for name, found in rows.items()
    ]


def teacher_scores(teacher: dict[str, str]) -> dict[str, float]:
    """AP on the test split of the teacher that the rows share: ap, ap50, ap75."""
    found = evaluate(
        teacher["config"],
        teacher["checkpoint"],
        work_dir=Path(teacher["checkpoint"]).parent / "test",
        overrides={"log_level": "WARNING"},
    )
    return ap_of(found)


def write_comparison(path: str | Path, runs: Sequence[Run], *, output: Path) -> dict[str, Any]:
    """Writes the table as JSON, with all runs and the teacher's own AP; returns what was written.

    Runs without a teacher are those of their student's config: `measured` has them as `ld-deploy published` reads them.
    """
    teacher = load_config(path).teacher
    alone = {row.name: row.student for row in read_comparison(path) if row.config.model.type != DISTILLED}
    content = {
        "comparison": str(path),
        "teacher": teacher_scores(teacher),
        "rows": summarise(runs),
        "runs": [asdict(run) for run in runs],
        "measured": [
            {"config": os.path.relpath(alone[run.row]), "seed": run.seed, "split": "test", **run.test}
            for run in runs
            if run.row in alone
        ],
        "machine": machine(),
        "versions": {name: version(name) for name in TOOLS},
    }
    write_text(output, json.dumps(content, indent=1) + "\n")
    return content
