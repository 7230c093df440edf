"""AP against milliseconds: the points that no other beats on a line, the others in grey."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from ld_runtime.report.blocks import Chart, label
from ld_runtime.report.rows import pareto_front

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ld_runtime.report.material import Recommendation
    from ld_runtime.report.rows import Row

COMMAND_COLUMNS = 44  # of a line of a command in a hover label, which does not wrap by itself


@dataclass(frozen=True)
class Dot:
    """One point.

    Args:
        name: of the file or reference.
        runs_in: engine and precision.
        quality: AP or agreement, 0-1.
        milliseconds: file to boxes, median.
        on_front: no other beats it.
        command: that detects with it; "" where none is known.
        named: its name is written beside it.
    """

    name: str
    runs_in: str
    quality: float
    milliseconds: float
    on_front: bool
    command: str = ""
    named: bool = True


def dots_of_rows(rows: Sequence[Row]) -> list[Dot]:
    """Of those with AP and time. Files are named that are on the front, references always."""
    front = pareto_front(rows)
    return [
        Dot(
            row.name,
            row.runs_in,
            row.accuracy.ap,
            row.milliseconds,
            on_front=row in front,
            named=row in front or not row.is_file,
        )
        for row in rows
        if row.accuracy.ap is not None and row.milliseconds is not None
    ]


def dots_of_recommendation(one: Recommendation) -> list[Dot]:
    """Its points; its own front, which knows the spread of the times."""
    return [
        Dot(
            point.name,
            f"{point.key.backend} {point.key.precision}",
            point.quality,
            point.median_ms,
            on_front=point.on_front,
            command=point.command,
            named=point.on_front,
        )
        for point in one.points
    ]


def points_chart(dots: Mapping[str, Sequence[Dot]], words: Mapping[str, str]) -> Chart:
    """One choice for each set of points that were measured together.

    Args:
        dots: by choice.
        words: what quality is in each: `AP` or `agreement`.
    """
    traces: list[dict[str, Any]] = []
    for choice, points in dots.items():
        front = sorted((one for one in points if one.on_front), key=lambda one: one.milliseconds)
        beaten = [one for one in points if not one.on_front]
        common: dict[str, Any] = {"word": words[choice], "middle": max(one.milliseconds for one in points) / 2}
        traces.append(_trace("beaten", beaten, choice, **common) | {"mode": "markers+text"})
        traces.append(
            _trace("front", front, choice, **common)
            | {"mode": "lines+markers+text", "line": {"color": "var(--series-1)", "width": 1.5, "shape": "hv"}}
        )
    caption = (
        "Up and to the left is better. On the line: what no other point beats. Grey: another is as good and faster, or "
        "as fast and better; recommend takes times within a run's own spread as equal."
    )
    layouts = {
        choice: {
            "yaxis": {"title": {"text": words[choice]}, "range": _padded([one.quality for one in points])},
            "xaxis": {
                "title": {"text": "ms, image file to boxes (median)"},
                "range": [0, 1.12 * max(one.milliseconds for one in points)],
            },
        }
        for choice, points in dots.items()
    }
    return Chart("AP against time", caption, traces, menus=(tuple(dots),), layouts=layouts, height=400)


def _trace(name: str, points: Sequence[Dot], choice: str, *, word: str, middle: float) -> dict[str, Any]:
    is_front = name == "front"
    return {
        "name": name,
        "meta": [choice],
        "x": [one.milliseconds for one in points],
        "y": [one.quality for one in points],
        "text": [label(one.name) if one.named else "" for one in points],
        # Inwards, and in turn below and above, so that neighbours do not write over each other.
        "textposition": [
            f"{'bottom' if is_front and at % 2 == 0 else 'top'} {'right' if one.milliseconds < middle else 'left'}"
            for at, one in enumerate(points)
        ],
        "textfont": {} if is_front else {"color": "var(--muted)"},
        "customdata": [
            [label(one.name), label(one.runs_in), "".join(f"<br>{label(line)}" for line in _lines(one.command))]
            for one in points
        ],
        "hovertemplate": f"<b>%{{customdata[0]}}</b> %{{customdata[1]}}<br>{word} %{{y:.4f}}<br>%{{x:.2f}} ms"
        "%{customdata[2]}<extra></extra>",
        "marker": {
            "color": "var(--series-1)" if is_front else "var(--muted)",
            "size": 12 if is_front else 9,
            "symbol": "diamond" if is_front else "circle",
            "opacity": 1 if is_front else 0.6,
        },
        "cliponaxis": False,
    }


def _lines(command: str) -> list[str]:
    return wrap(command, COMMAND_COLUMNS, break_long_words=False, break_on_hyphens=False)


def _padded(values: Sequence[float]) -> list[float]:
    """A range around some APs: differences below two points would be noise blown up to the height of the chart."""
    room = max(0.02, 0.25 * (max(values) - min(values)))
    return [max(0.0, min(values) - room), min(1.0, max(values) + room)]
