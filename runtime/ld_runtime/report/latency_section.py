"""Where the time goes, and how it is distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_runtime.report.blocks import COLOURS, Chart, Section, label, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Bench

MS = {"title": {"text": "ms"}, "rangemode": "tozero"}


def latency_section(benches: Sequence[Bench]) -> Section | None:
    """Two charts for each benchmark."""
    blocks: list[Block] = []
    for bench in benches:
        where = f"{bench.machine.get('cpu', '')}, {bench.machine.get('cores', '?')} cores, {bench.images} images"
        blocks += [spans_chart(bench, where), distribution_chart(bench, where)]
    return Section("latency", "Time", blocks) if blocks else None


def spans_chart(bench: Bench, where: str) -> Chart:
    """Mean ms of each span, stacked: means add up."""
    # In two lines: a phone has no room for a long name beside the bars.
    names = [label(one.name).replace(" · ", "<br>· ") for one in bench.timed][::-1]
    parts: dict[str, list[float | None]] = {"preprocess": [], "engine": [], "decode and the rest": [], "as a whole": []}
    for one in reversed(bench.timed):
        mean = {name: span.mean_ms for name, span in one.spans.items()}
        staged = "engine" in mean
        parts["preprocess"].append(mean.get("preprocess"))
        parts["engine"].append(mean.get("engine"))
        rest = mean["end_to_end"] - mean.get("preprocess", 0) - mean.get("engine", 0)
        parts["decode and the rest"].append(rest if staged else None)
        parts["as a whole"].append(None if staged else mean["end_to_end"])
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "x": values,
            "y": names,
            "marker": {"color": COLOURS[at]},
            "hovertemplate": "%{y}<br>" + part + " %{x:.2f} ms<extra></extra>",
        }
        for at, (part, values) in enumerate(parts.items())
        if any(value is not None for value in values)
    ]
    caption = f"Mean ms from image file to boxes, one image at a time. {where}."
    layout = {"barmode": "stack", "xaxis": MS, "yaxis": {"automargin": True}}
    return Chart("Where the time goes", caption, traces, layout, height=max(340, 130 + 34 * len(names)))


def distribution_chart(bench: Bench, where: str) -> Chart:
    """Share of the runs that took no longer than x ms, by span."""
    spans = list(dict.fromkeys(name for one in bench.timed for name in one.spans))[::-1]
    traces: list[dict[str, Any]] = [
        {
            "name": label(one.name),
            "meta": [span],
            "mode": "lines+markers",
            "x": [ms for _, ms in one.spans[span].quantiles],
            "y": [percent for percent, _ in one.spans[span].quantiles],
            "line": style(index),
            "marker": {"size": 5},
            "hovertemplate": f"{label(one.name)}<br>%{{y}} % within %{{x:.2f}} ms"
            f" (n {one.spans[span].n})<extra></extra>",
        }
        for span in spans
        for index, one in enumerate(bench.timed)
        if span in one.spans
    ]
    layout = {"xaxis": MS, "yaxis": {"title": {"text": "% of the runs"}, "range": [0, 103]}}
    caption = f"Share of the runs within x ms: steep is steady, a long tail to the right is jitter. {where}."
    return Chart("Distribution of latency", caption, traces, layout, (tuple(spans),))
