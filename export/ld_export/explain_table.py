"""An explanation as tables, for a screen of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from ld_export.explain import Explanation, Swap
    from ld_export.explain_engine import EngineExplanation

STEPS = ("PyTorch", "+ preprocess", "+ trunk", "+ decode", "+ NMS")
WORST = 5


def explanation_tables(explanation: Explanation | EngineExplanation) -> Iterator[Table]:
    """The chain of stages, the maps by level, the boxes without a partner; of an engine, those of its .onnx file."""
    from rich.table import Table

    from ld_export.explain_engine import EngineExplanation

    engine = explanation if isinstance(explanation, EngineExplanation) else None
    one = explanation.onnx if isinstance(explanation, EngineExplanation) else explanation
    table = Table(title=f"{one.name}: its stages in the place of PyTorch's")
    for heading in ("stages", "AP", "AP step", "moved", "alone: AP", "alone: moved"):
        table.add_column(heading, justify="left" if heading == "stages" else "right")
    for step, swap, alone in zip(STEPS, one.chain, (None, *one.singles), strict=True):
        figures = [_points(swap.ap), "", ""] if alone is None else [_points(swap.ap), *_change(swap)]
        table.add_row(step, *figures, *(("", "") if alone is None else _change(alone)))
    if engine is not None:
        table.add_row("+ engine", _points(engine.step.ap), *_change(engine.step), "", "")
        table.caption = f"+ engine: {engine.name} in the place of the file, which is run on ONNX Runtime"
    yield table

    table = Table(title="maps against PyTorch's on one canvas, absolute differences")
    table.add_column("stride")
    for heading in ("logit mean", "score max", "px mean", "px p99", "px max", "cosine"):
        table.add_column(heading, justify="right")
    for label, levels in (("", one.levels), (", above", one.levels_above)):
        for level in levels:
            edges = level.edges_px
            values = level.class_logits.mean, level.scores.max, edges.mean, edges.p99, edges.max
            cosine = "-" if level.edge_cosine is None else f"{level.edge_cosine:.5f}"
            table.add_row(f"{level.stride}{label}", *(f"{value:.2g}" for value in values), cosine)
    table.caption = "px: the four edges of a location; above: where a score is above the threshold"
    yield table

    if one.at_threshold or one.real:
        near, real = (", ".join(f"{why} {n}" for why, n in kind.items()) for kind in (one.at_threshold, one.real))
        title = f"without a partner: {sum(one.at_threshold.values())} at a threshold ({near or 'none'}), "
        table = Table(title=f"{title}{sum(one.real.values())} real ({real or 'none'})")
        for heading in ("image", "side", "class", "score", "reason", "px"):
            table.add_column(heading, justify="left" if heading in ("side", "reason") else "right")
        for box in one.worst[:WORST]:
            shift = box.decision.shift_px
            moved = "-" if shift is None else f"{shift:.2f}"
            table.add_row(str(box.image), box.side, str(box.label), f"{box.score:.3f}", box.decision.reason, moved)
        yield table


def _points(ap: float | None) -> str:
    return "-" if ap is None else f"{ap:.4f}"


def _change(swap: Swap) -> tuple[str, str]:
    difference = "-" if swap.ap_difference is None else f"{swap.ap_difference:+.4f}"
    return difference, f"{swap.moved_share:.2%}"
