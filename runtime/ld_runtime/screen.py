"""What a command shows: text for people or, with `--json`, one object for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object; progress and tables go to standard error."),
]


_printed = False


def start() -> None:
    """Before a command: no object was printed yet."""
    global _printed  # noqa: PLW0603 - standard output is one for the process too
    _printed = False


def is_speaker() -> bool:
    """Whether this process speaks: of torchrun's processes the first does, for all of them."""
    return os.environ.get("RANK", "0") == "0"


def print_object(content: Mapping[str, Any]) -> None:
    """Prints one JSON object to standard output, in the process that speaks."""
    global _printed  # noqa: PLW0603
    if is_speaker():
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
    _printed = True


def print_error(error: Exception) -> None:
    """Prints an error as the object of the command, unless its result was printed already."""
    if not _printed:
        print_object({"error": {"type": type(error).__name__, "message": str(error)}})


class Screen:
    """Where a command prints.

    Args:
        as_json: standard output gets the object of `result` and nothing else; all text goes to standard error.

    Attributes:
        console: for text, tables and progress; silent in a process that does not speak.
    """

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console

        self._as_json = as_json
        # Bound now: what `captured` redirects does not move it.
        self.console: Console = Console(file=sys.stderr if as_json else sys.stdout, quiet=not is_speaker())

    @contextlib.contextmanager
    def captured(self) -> Iterator[None]:
        """With `--json`, what libraries print to standard output meanwhile goes to standard error."""
        if not self._as_json:
            yield
            return
        with contextlib.redirect_stdout(sys.stderr):
            yield

    def result(self, content: Mapping[str, Any]) -> None:
        """Prints what came out, where a program asked for it. Call it once, after everything was written."""
        if self._as_json:
            print_object(content)
