"""What a page is made of. Charts are plotly's JSON; colours in them are names of the page's CSS variables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Why plotly, at 4.8 MB a page: exact values on hover, legend toggles and zoom on mouse and touch are what readers of
# such a page ask for, and a kept library has them; charts are drawn when they come into view, so it opens at once.
COLOURS = tuple(f"var(--series-{number})" for number in range(1, 8))
DASHES = ("solid", "dash", "dot", "dashdot")


def style(index: int) -> dict[str, Any]:
    """Colour and dash of a line: 28 that differ, over again after the last."""
    return {"color": COLOURS[index % len(COLOURS)], "dash": DASHES[index // len(COLOURS) % len(DASHES)], "width": 2}


def label(text: str) -> str:
    """A file's or class's name for plotly, which reads a little HTML in its texts."""
    return escape(text, quote=False)


@dataclass(frozen=True)
class Chart:
    """One chart.

    Args:
        title: above it.
        caption: what a reader should see.
        traces: plotly's; one with `meta`, a choice for each menu, is shown while those are chosen.
        layout: plotly's, on top of the page's own.
        menus: the choices of each menu, the first shown at the start.
        layouts: by choice of the first menu, on top of `layout`.
        height: in CSS pixels.
    """

    title: str
    caption: str
    traces: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)
    menus: tuple[tuple[str, ...], ...] = ()
    layouts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    height: int = 340

    @property
    def figure(self) -> dict[str, Any]:
        """As the page's script takes it."""
        return {"data": self.traces, "layout": self.layout, "layouts": dict(self.layouts)}


@dataclass(frozen=True)
class Cell:
    """Of a table: its text, and what it is sorted by; a command when `code`."""

    text: str
    order: float | str | None = None
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Rows that can be sorted: by text in `text_columns`, by number in the others."""

    title: str
    headings: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    caption: str = ""
    text_columns: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Picture:
    """An embedded picture: a data URI."""

    uri: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    title: str
    caption: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Mark:
    """A box in an overlay, in pixels of its image, then turned by `angle` radians; a wrong one is dashed."""

    x: float
    y: float
    width: float
    height: float
    text: str
    wrong: bool
    angle: float = 0.0

    @property
    def transform(self) -> str:
        """As SVG's attribute."""
        centre = f"{self.x + self.width / 2:.1f} {self.y + self.height / 2:.1f}"
        return f"rotate({math.degrees(self.angle):.2f} {centre})"


@dataclass(frozen=True)
class Overlay:
    """One image, once for each of several sets of boxes: (name, boxes)."""

    uri: str
    width: int
    height: int
    caption: str
    panels: list[tuple[str, list[Mark]]]


@dataclass(frozen=True)
class Overlays:
    """Images with boxes, side by side: those of one of several `choices` at a time."""

    title: str
    caption: str
    choices: Mapping[str, Sequence[Overlay]]


@dataclass(frozen=True)
class Lines:
    """Sentences; or commands and the like when `code`, behind a title that opens them."""

    title: str
    lines: list[str]
    code: bool = False


Block = Chart | Table | Gallery | Overlays | Lines


@dataclass(frozen=True)
class Verdict:
    """A deployed file at a glance.

    Args:
        name: of it.
        good: whether it agrees with PyTorch; None where that was not judged.
        figures: as the page's headings, each with what it is in few letters.
        failures: why it does not agree.
    """

    name: str
    good: bool | None
    figures: tuple[str, ...]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What a reader sees first: a line for each deployed file, and sentences, each with whether it is good news."""

    headings: tuple[str, ...]
    verdicts: Sequence[Verdict]
    sentences: Sequence[tuple[bool | None, str]]


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    title: str
    blocks: list[Block]


def number(value: float | None, form: str) -> Cell:
    """A number, or a dash where there is none."""
    return Cell("-") if value is None else Cell(format(value, form), value)
