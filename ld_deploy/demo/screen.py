"""What the demo shows while it runs: a bar for the stage at work, a line for each that is done."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console


def minutes(seconds: float) -> str:
    """As 1:24."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02d}"


class StageBar:
    """The bar of the stage at work."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def say(self, note: str) -> None:
        """What is being done."""
        self._progress.update(self._task, note=escape(note))

    def advance(self, completed: int, total: int, note: str | None = None) -> None:
        """How far it is, and a note where there is a new one."""
        fields: dict[str, Any] = {} if note is None else {"note": escape(note)}
        self._progress.update(self._task, completed=completed, total=total, **fields)


class Screen:
    """Numbered stages on a console.

    Args:
        console: writes to a stream of its own: the standard streams go to a log meanwhile.
        stages: how many there will be.
    """

    def __init__(self, console: Console, *, stages: int) -> None:
        self.console = console
        self.stages = stages
        self.number = 0

    @contextmanager
    def bar(self, title: str) -> Iterator[StageBar]:
        """A bar while the block runs; it vanishes at its end."""
        columns = (
            TextColumn(f"\\[{self.number:>2}/{self.stages}] {title}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}", style="dim"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        progress = Progress(
            *columns,
            console=self.console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not self.console.is_terminal,
        )
        with progress:
            yield StageBar(progress, progress.add_task("", total=None, note=""))

    def line(self, title: str, *, summary: str, elapsed_s: float, done_now: bool, remaining_s: float) -> None:
        """The line of a stage that is done."""
        spent = f"[dim]{minutes(elapsed_s)}[/]" if done_now else "[dim]done before[/]"
        remains = f"[dim], about {minutes(remaining_s)} to go[/]" if remaining_s >= 1 else ""
        self.console.print(
            f"\\[{self.number:>2}/{self.stages}] {title:<36} {escape(summary)}  {spent}{remains}",
            highlight=False,
            soft_wrap=True,
        )

    def note(self, title: str, text: str) -> None:
        """A line for a stage that had nothing to do, and why."""
        self.console.print(
            f"\\[{self.number:>2}/{self.stages}] {title:<36} {escape(text)}", highlight=False, soft_wrap=True
        )
