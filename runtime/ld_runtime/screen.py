"""What a command shows: text for people or, with `--json`, one object for programs."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object; progress and tables go to standard error."),
]


class Screen:
    """Where a command prints.

    Args:
        as_json: standard output gets the object of `result` and nothing else; all text goes to standard error.

    Attributes:
        console: for text, tables and progress.
    """

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console

        self._as_json = as_json
        self.console: Console = Console(stderr=as_json)

    def result(self, content: Mapping[str, Any]) -> None:
        """Prints what came out, where a program asked for it. Call it once, after everything was written."""
        if self._as_json:
            sys.stdout.write(json.dumps(content, indent=1) + "\n")
