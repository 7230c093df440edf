"""Curves of trainings, what recipes are worth, and the pictures that trainings drew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_runtime.report.blocks import COLOURS, Chart, Gallery, Picture, Section, label, style
from ld_runtime.report.embed import data_uri

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Comparison, Point, Training

MOST_PICTURES = 12
EPOCHS = {"title": {"text": "epoch"}}


def training_section(trainings: Sequence[Training], comparisons: Sequence[Comparison]) -> Section | None:
    """All that training left."""
    blocks: list[Block] = [recipes(one) for one in comparisons]
    if any(one.val_ap for one in trainings):
        caption = "AP on val, 0-1, after each evaluated epoch. Select runs in the legend: double-click shows one alone."
        traces = [_line(label(one.name), one.val_ap, index) for index, one in enumerate(trainings) if one.val_ap]
        blocks.append(Chart("Validation AP", caption, traces, {"xaxis": EPOCHS, "yaxis": {"title": {"text": "AP"}}}))
    for title, caption, field, prefix in (
        ("Loss by term", "Each term as it is weighted in the sum; `loss` is the sum.", "losses", "loss_"),
        ("Share of the loss", "Of each term in the sum of all, 0-1.", "loss_shares", "share_"),
        (
            "Share of the gradient",
            "Norm of each term's gradient at the neck over the sum of the norms: who pulls.",
            "gradient_shares",
            "grad_",
        ),
    ):
        told = {one.name: getattr(one, field) for one in trainings if getattr(one, field)}
        if told:
            blocks.append(_by_term(title, caption, told, prefix=prefix))
    blocks += galleries(trainings)
    return Section("training", "Training", blocks) if blocks else None


def recipes(one: Comparison) -> Chart:
    """Test AP of each recipe, a dot a seed."""
    rows = sorted(one.recipes, key=lambda row: sum(row.test_ap) / len(row.test_ap))
    traces: list[dict[str, Any]] = [
        {
            "name": name,
            "mode": "markers",
            "x": [ap for row in rows for ap in getattr(row, field)],
            "y": [label(row.name) for row in rows for _ in getattr(row, field)],
            "marker": {"color": COLOURS[at], "symbol": symbol, "size": 9},
            "hovertemplate": "%{y}<br>AP %{x:.3f}<extra>" + name + "</extra>",
        }
        for at, (name, field, symbol) in enumerate(
            (("test, a dot a seed", "test_ap", "circle"), ("val", "val_ap", "line-ns-open"))
        )
    ]
    line = {
        "type": "line",
        "x0": one.teacher_ap,
        "x1": one.teacher_ap,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": "var(--muted)", "dash": "dot", "width": 1.5},
    }
    layout = {"xaxis": {"title": {"text": "AP"}}, "yaxis": {"automargin": True}, "shapes": [line]}
    caption = f"{one.name}: recipes by test AP; the dotted line is the teacher, {one.teacher_ap:.3f}."
    return Chart("Recipes side by side", caption, traces, layout, height=140 + 24 * len(rows))


def galleries(trainings: Sequence[Training]) -> list[Gallery]:
    """The last epoch's pictures of the first image of each run."""
    found = []
    for kind, title, caption in (
        ("regions", "Where it distils", "Weight of each location, by stride, over a training image; last epoch."),
        ("edges", "Edge distributions", "Teacher, student and ground truth at positive locations; last epoch."),
    ):
        chosen = []
        for one in trainings:
            own = [picture for picture in one.pictures if picture.kind == kind]
            if own:
                last = max(picture.epoch for picture in own)
                chosen.append((one.name, next(picture for picture in own if picture.epoch == last)))
        if chosen:
            left_out = len(chosen) - MOST_PICTURES // 2
            more = f" {left_out} more runs have theirs in their folders." if left_out > 0 else ""
            pictures = [
                Picture(data_uri(picture.path, longest=1200), f"{name}, epoch {picture.epoch}")
                for name, picture in chosen[: MOST_PICTURES // 2]
            ]
            found.append(Gallery(title, caption + more, pictures))
    return found


def _by_term(title: str, caption: str, told: Mapping[str, Mapping[str, Sequence[Point]]], *, prefix: str) -> Chart:
    terms = list(dict.fromkeys(term for curves in told.values() for term in curves))
    traces = [
        {**_line(term.removeprefix(prefix), points, terms.index(term)), "meta": [name]}
        for name, curves in told.items()
        for term, points in curves.items()
    ]
    return Chart(title, caption, traces, {"xaxis": EPOCHS, "yaxis": {"rangemode": "tozero"}}, (tuple(told),))


def _line(name: str, points: Sequence[Point], index: int) -> dict[str, Any]:
    return {
        "name": name,
        "mode": "lines",
        "x": [round(x, 3) for x, _ in points],
        "y": [float(f"{y:.5g}") for _, y in points],
        "line": style(index),
        "hovertemplate": f"{name}<br>epoch %{{x:.1f}}: %{{y:.4g}}<extra></extra>",
    }
