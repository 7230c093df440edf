"""Stages that are done once: each leaves a JSON, and is skipped while what it was made from stays the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import DataError
from ld_runtime.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Outcome:
    """What a stage's work gives.

    Args:
        summary: a few words for the screen.
        content: what it measured, as JSON knows it.
        files: what it wrote, relative to the output folder; it is done again when one is gone.
    """

    summary: str
    content: dict[str, Any]
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageResult(Outcome):
    """What a stage left.

    Args:
        key: hash of everything the stage depends on.
        elapsed_s: of the run that made it, the interrupted ones before it not counted.
    """

    key: str = ""
    elapsed_s: float = 0.0


def key_of(inputs: Mapping[str, Any]) -> str:
    """Hash of what a stage depends on: equal inputs, equal key, whatever their order."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


class StageBook:
    """The stages of one output folder: `stages/NAME.json`.

    Args:
        output: the folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.results: dict[str, StageResult] = {}

    def path(self, name: str) -> Path:
        """Of the JSON of a stage."""
        return self.output / "stages" / f"{name}.json"

    def find(self, name: str, *, key: str) -> StageResult | None:
        """What an earlier run left, or None when it is not there, was made from something else or has lost a file.

        Raises:
            DataError: The file is damaged.
        """
        path = self.path(name)
        if not path.is_file():
            return None
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            result = StageResult(**{**stored, "files": tuple(stored["files"])})
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} is damaged ({error}): delete it, and the stage runs again") from error
        if result.key != key or not all((self.output / file).exists() for file in result.files):
            return None
        return result

    def run(self, name: str, *, key: str, work: Callable[[], Outcome]) -> tuple[StageResult, bool]:
        """Finds what an earlier run left, or does the work and leaves it.

        Args:
            name: of the stage.
            key: hash of what it depends on.
            work: does it.

        Returns:
            The result, and whether the work was done now.
        """
        result = self.find(name, key=key)
        done_now = result is None
        if result is None:
            start = perf_counter()
            outcome = work()
            result = StageResult(**vars(outcome), key=key, elapsed_s=perf_counter() - start)
            write_text(self.path(name), json.dumps(asdict(result), indent=1))
        self.results[name] = result
        return result, done_now

    def elapsed_s(self) -> float:
        """Of all stages so far, those of earlier runs included."""
        return sum(result.elapsed_s for result in self.results.values())
