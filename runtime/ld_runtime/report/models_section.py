"""At a glance: the table of models, and AP against milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_runtime.report.blocks import Cell, Chart, Section, Table, label, number
from ld_runtime.report.rows import pareto_front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Material
    from ld_runtime.report.rows import Row

HEADINGS = ("model", "runs in", "precision", "AP", "AP50", "AP75", "ΔAP", "matched", "ms", "fps", "MB")
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "")


def verdicts(material: Material) -> list[tuple[bool | None, str]]:
    """Sentences for the top, each with whether it is good news; None where it is neither."""
    found: list[tuple[bool | None, str]] = []
    judged = [parity for parity in material.parities if parity.failures is not None]
    if judged:
        failures = [line for parity in judged for line in parity.failures or ()]
        files = sum(len(parity.files) for parity in judged)
        failed = len({(id(parity), line.split(":")[0]) for parity in judged for line in parity.failures or ()})
        found.append((not failures, f"{files - failed} of {files} deployed files agree with PyTorch."))
        found += [(False, line) for line in failures]
    found += [(None, line) for line in material.verdicts]
    if any(bench.stable is False for bench in material.benches):
        found.append((False, "Clocks did not hold during a benchmark: its times are not to be quoted."))
    return found


def models_section(rows: Sequence[Row]) -> Section | None:
    """A table and a chart for each set of images."""
    blocks: list[Block] = []
    for data in dict.fromkeys(row.data for row in rows):
        here = [row for row in rows if row.data == data]
        front = pareto_front(here)
        caption = (
            "AP 0 to 1 by COCO's rule. ΔAP: minus the reference's, [95 % interval]. matched: boxes with "
            "a partner in the reference. ms: image file to boxes, median, one image at a time. ◆: on the front."
        )
        title = data or "Timed, without an AP in this run"
        blocks.append(Table(title, HEADINGS, [_cells(row, front=front) for row in here], caption, text_columns=3))
        if data and any(row.milliseconds is not None for row in here):
            blocks.append(ap_against_ms(here, front))
    return Section("models", "Models", blocks) if blocks else None


def ap_against_ms(rows: Sequence[Row], front: Sequence[Row]) -> Chart:
    """Points by precision, and the front."""
    line = {"color": "var(--muted)", "dash": "dot", "width": 1.5, "shape": "hv"}
    traces: list[dict[str, Any]] = [
        {
            "name": "front",
            "mode": "lines",
            "x": [row.milliseconds for row in front],
            "y": [row.accuracy.ap for row in front],
            "line": line,
            "hoverinfo": "skip",
        }
    ]
    sides = ("bottom left", "top left")  # in turn, so that neighbours on the front do not write over each other
    for index, precision in enumerate(PRECISIONS):
        points = [row for row in rows if row.key.precision == precision and row.milliseconds is not None]
        if points:
            on_front = [row in front for row in points]
            traces.append(
                {
                    "name": precision or "precision not told",
                    "mode": "markers+text",
                    "x": [row.milliseconds for row in points],
                    "y": [row.accuracy.ap for row in points],
                    "text": [label(row.name) if on else "" for row, on in zip(points, on_front, strict=True)],
                    "textposition": [sides[front.index(row) % 2] if row in front else "top left" for row in points],
                    "customdata": [[label(row.name), row.key.backend, row.timed and row.timed.fps] for row in points],
                    "hovertemplate": "<b>%{customdata[0]}</b> %{customdata[1]}<br>AP %{y:.4f}<br>%{x:.2f} ms"
                    "<br>%{customdata[2]:.1f} fps<extra></extra>",
                    "marker": {
                        "color": f"var(--series-{index % 7 + 1})",
                        "size": [13 if on else 9 for on in on_front],
                        "symbol": ["diamond" if on else "circle" for on in on_front],
                    },
                    "cliponaxis": False,
                }
            )
    known = [row.accuracy.ap for row in rows if row.accuracy.ap is not None and row.milliseconds is not None]
    layout = {
        "xaxis": {"title": {"text": "ms, image file to boxes (median)"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "AP"}, "range": _padded(known)},
    }
    caption = (
        "Up and to the left is better. Diamonds are the front: no other timed model here has more AP in less time."
    )
    return Chart("AP against time", caption, traces, layout, height=430)


def _padded(values: Sequence[float]) -> list[float]:
    """A range around some APs: differences below two points would be noise blown up to the height of the chart."""
    if not values:
        return [0, 1]
    room = max(0.02, 0.25 * (max(values) - min(values)))
    return [max(0.0, min(values) - room), min(1.0, max(values) + room)]


def _cells(row: Row, *, front: Sequence[Row]) -> tuple[Cell, ...]:
    difference = row.difference
    text = "reference" if row.data and difference is None else "-"
    if difference is not None:
        text = f"{difference.ap:+.4f}"
        if difference.low is not None and difference.high is not None:
            text += f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    accuracy = row.accuracy
    return (
        Cell(f"◆ {row.name}" if row in front else row.name, row.name),
        Cell(row.key.backend or "-"),
        Cell(row.key.precision or "-"),
        number(accuracy.ap, ".4f"),
        number(accuracy.ap50, ".4f"),
        number(accuracy.ap75, ".4f"),
        Cell(text, difference.ap if difference else None),
        number(row.matched_share, ".2%"),
        number(row.milliseconds, ".2f"),
        number(row.timed.fps if row.timed else None, ".1f"),
        number(row.timed.size_mb if row.timed else None, ".1f"),
    )
