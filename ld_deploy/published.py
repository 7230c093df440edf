"""What was published for each config, beside what this project measured.

A config says it in a literal of its own: `published = dict(ap=0.421, ap50=0.603, on='COCO val2017', source='...')`, AP
from 0 to 1 and what is unknown left out, or `published = None` where nothing was published. What the config is, is the
first sentence of the comment that it begins with.

A measurement is any object, at any depth of any JSON file of the results folder, that has `config` (the path from the
repository's root) and `ap` (a number from 0 to 1): `{"config": "configs/bccd/ld_student.py", "ap": 0.5, "seed": 0,
"split": "test"}`. `split` is `test` where it is left out. Measurements of one config and split are its seeds.

Neither torch nor mmdet is imported: a table of all configs takes no time.
"""

from __future__ import annotations

import ast
import json
import re
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "published"
AP_KEYS = ("ap", "ap50", "ap75")
TEXT_KEYS = ("on", "source")


@dataclass(frozen=True)
class Published:
    """A published result.

    Args:
        on: the data set and split.
        source: where it stands.
        ap: COCO's AP, 0 to 1; None where a row was published without it.
        ap50: at IoU 0.5.
        ap75: at IoU 0.75.
    """

    on: str
    source: str
    ap: float | None = None
    ap50: float | None = None
    ap75: float | None = None


@dataclass(frozen=True)
class Measured:
    """What this project measured of a config on one split.

    Args:
        split: `test`, `val`.
        ap: of each measurement, 0 to 1, in the order of the files.
        files: the results they stand in, without repetition.
    """

    split: str
    ap: tuple[float, ...]
    files: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Of the measurements."""
        return statistics.mean(self.ap)

    @property
    def deviation(self) -> float | None:
        """Standard deviation of a sample; None for one measurement."""
        return statistics.stdev(self.ap) if len(self.ap) > 1 else None


@dataclass(frozen=True)
class Row:
    """One config.

    Args:
        config: its path from the repository's root.
        title: what it is.
        published: None where it is no published row.
        measured: by split.
    """

    config: str
    title: str
    published: Published | None
    measured: tuple[Measured, ...] = ()


def natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts r18 before r101."""
    parts = re.findall(r"\d+|\D+", path.as_posix())
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def title_of(text: str) -> str:
    """The first sentence of the comment that a config begins with."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    return (" ".join(comment) + " ").split(". ", maxsplit=1)[0].strip().removesuffix(".")


def published_of(text: str, *, name: str) -> tuple[bool, Published | None]:
    """What a config's own text says was published.

    Args:
        text: of the config; what it inherits does not count.
        name: of the file, for the message.

    Returns:
        Whether it says so at all, and what.

    Raises:
        ConfigError: It is neither None nor a dict of literals with the keys of `Published`.
    """
    values = [
        node.value
        for node in ast.parse(text, filename=name).body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [NAME]
    ]
    if not values:
        return False, None
    value = values[-1]
    if isinstance(value, ast.Constant) and value.value is None:
        return True, None
    try:
        if not isinstance(value, ast.Call) or ast.unparse(value.func) != "dict" or value.args:
            raise ValueError("it is no dict(...)")  # noqa: TRY301 - one message for all of them
        read = {str(each.arg): ast.literal_eval(each.value) for each in value.keywords if each.arg != "_delete_"}
        found = Published(**read)
        if not all(isinstance(getattr(found, key), str) for key in TEXT_KEYS):
            raise ValueError(f"{' and '.join(TEXT_KEYS)} must be texts")  # noqa: TRY301
        if not all(is_ap(getattr(found, key)) for key in AP_KEYS if getattr(found, key) is not None):
            raise ValueError("an AP is a number from 0 to 1")  # noqa: TRY301
    except (ValueError, TypeError) as error:
        message = (
            f"{name}: {NAME} must be None, or dict(ap=0.421, ap50=..., ap75=..., on='COCO val2017', source='...') of "
            f"literals with unknown APs left out: {error}"
        )
        raise ConfigError(message) from error
    return True, found


def is_ap(value: object) -> bool:
    """Whether a value is an AP: a number from 0 to 1."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def objects(content: object) -> Iterator[dict[str, Any]]:
    """Every object of a JSON document, at any depth."""
    if isinstance(content, dict):
        yield content
        content = list(content.values())
    if isinstance(content, list):
        for each in content:
            yield from objects(each)


def measurements(results: Path) -> dict[str, tuple[Measured, ...]]:
    """What was measured, by the config's path from the repository's root.

    Raises:
        DataError: A file is no JSON.
    """
    found: dict[str, dict[str, list[tuple[float, str]]]] = {}
    for path in sorted(results.rglob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is no JSON: {error}") from error
        for each in objects(content):
            if isinstance(each.get("config"), str) and is_ap(each.get("ap")):
                config = Path(each["config"]).as_posix().removeprefix("./")
                by_split = found.setdefault(config, {})
                by_split.setdefault(str(each.get("split", "test")), []).append((float(each["ap"]), path.name))
    return {
        config: tuple(
            Measured(split, tuple(ap for ap, _ in pairs), tuple(dict.fromkeys(name for _, name in pairs)))
            for split, pairs in sorted(by_split.items())
        )
        for config, by_split in found.items()
    }


def read_rows(configs: str | Path, results: str | Path) -> list[Row]:
    """A row for each config that says what was published, and for each that was measured.

    Args:
        configs: folder of the configs, `configs` in the repository.
        results: folder of the JSON files.

    Raises:
        ConfigError: A folder is not there, a config does not say it in the right form, or none does.
        DataError: A result is no JSON, or names a config that is not there.
    """
    configs, results = Path(configs), Path(results)
    for folder, option in ((configs, "--configs"), (results, "--results")):
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: run this in the repository, or give its place by {option}")
    measured = measurements(results)
    rows = []
    for path in sorted(configs.rglob("*.py"), key=natural):
        text = path.read_text(encoding="utf-8")
        config = f"configs/{path.relative_to(configs).as_posix()}"
        says_so, published = published_of(text, name=str(path))
        of_config = measured.pop(config, ())
        if says_so or of_config:
            rows.append(Row(config, title_of(text), published, of_config))
    if measured:
        config, (first, *_) = next(iter(measured.items()))
        raise DataError(f"{first.files[0]} in {results} names the config {config}, and {configs} has none such")
    if not rows:
        raise ConfigError(f"no config in {configs} says what was published: give the repository's folder by --configs")
    return rows


def as_json(rows: Sequence[Row]) -> str:
    """The rows as a JSON list; AP 0 to 1."""
    content = [
        {
            **asdict(row),
            "measured": [{**asdict(each), "mean": each.mean, "deviation": each.deviation} for each in row.measured],
        }
        for row in rows
    ]
    return json.dumps(content, indent=1) + "\n"


def published_cell(row: Row) -> str:
    """Such as `42.1`, `47.1 test-dev`, `54.0 VOC07 test` or `-`, in points."""
    if row.published is None or row.published.ap is None:
        return "-"
    elsewhere = row.published.on.removeprefix("COCO ")
    return f"{100 * row.published.ap:.1f}" + ("" if elsewhere == "val2017" else f" {elsewhere}")


def measured_cell(row: Row) -> str:
    """Such as `41.9`, `50.1 ± 0.3 (3 seeds)`, with the split where it is not `test`, or `-`; in points."""
    cells = []
    for each in row.measured:
        spread = "" if each.deviation is None else f" ± {100 * each.deviation:.1f} ({len(each.ap)} seeds)"
        split = "" if each.split == "test" else f" {each.split}"
        cells.append(f"{100 * each.mean:.1f}{spread}{split}")
    return ", ".join(cells) or "-"
