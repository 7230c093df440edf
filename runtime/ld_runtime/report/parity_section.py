"""Deployed files against their reference, box by box."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.parity import match_boxes, shift_of
from ld_runtime.report.blocks import Cell, Chart, Section, Table, number
from ld_runtime.report.explanation_blocks import explanation_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.detection_record import DetectionRecord
    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Parity

PAIR_IOU = 0.5
MOST_POINTS = 1500  # of each file: all pairs of a large test set would be most of the page


@dataclass(frozen=True, eq=False)
class Pairs:
    """Boxes of a reference and of a deployed file, over all images.

    Args:
        scores: float64 (n, 2) of the pairs, the reference's first.
        shift_px: float64 (n,), the largest of the four coordinates, in pixels of the original image.
        alone: scores of the boxes without a partner, the reference's and the deployed file's.
    """

    scores: NDArray[np.float64]
    shift_px: NDArray[np.float64]
    alone: tuple[list[float], list[float]]


def parity_section(records: Sequence[tuple[Parity, DetectionRecord]], parities: Sequence[Parity]) -> Section | None:
    """A row for each file, what was explained, and one chart."""
    judged = [one for one in parities if any(file.matched_share is not None for file in one.files)]
    blocks: list[Block] = [agreement_table(judged), *explanation_tables(judged)] if judged else []
    if records:
        blocks.append(pairs_chart(records))
    return Section("parity", "Parity", blocks) if blocks else None


def agreement_table(parities: Sequence[Parity]) -> Table:
    """How the boxes agree, and the cause of each that has no partner."""
    rows = [
        (
            Cell(one.label),
            Cell(parity.model),
            number(one.difference.ap if one.difference else None, "+.4f"),
            number(one.matched_share, ".3%"),
            number(one.max_score_shift, ".2g"),
            number(one.max_box_shift_px, ".2g"),
            Cell(", ".join(f"{cause} {count}" for cause, count in sorted(one.causes.items())) or "none"),
        )
        for parity in parities
        for one in parity.files
    ]
    headings = ("file", "model", "ΔAP", "matched", "score shift, max", "box shift px, max", "unmatched, by cause")
    caption = (
        "Against the model in PyTorch. Pairs: one class, IoU 0.99 or more; shifts are of pairs. Causes, the first that "
        "holds: at the score threshold; cut at the most detections; a tie; at the NMS threshold; moved by a vote; "
        "unexplained."
    )
    return Table("Agreement with PyTorch", headings, rows, caption, text_columns=(0, 1, 6))


def pairs_chart(records: Sequence[tuple[Parity, DetectionRecord]]) -> Chart:
    """Scores of pairs against each other, coloured by how far their boxes lie apart; the least alike file first."""
    files = [
        (file.label, file.matched_share or 0.0, pairs_of_boxes(record, file.name))
        for parity, record in records
        for file in parity.files
        if file.name in record.detections
    ]
    files.sort(key=lambda one: one[1])
    traces: list[dict[str, Any]] = []
    for name, _, pairs in files:
        keep = np.linspace(0, len(pairs.scores) - 1, min(len(pairs.scores), MOST_POINTS)).astype(int)
        shifts = pairs.shift_px[keep]
        traces.append(
            {
                "name": "pairs",
                "meta": [name],
                "mode": "markers",
                "x": np.round(pairs.scores[keep, 0], 5).tolist(),
                "y": np.round(pairs.scores[keep, 1], 5).tolist(),
                "customdata": np.round(shifts, 4).tolist(),
                "marker": {
                    "color": np.round(shifts, 4).tolist(),
                    "cmin": 0,
                    # So that a file whose boxes lie where PyTorch's do is not coloured by its rounding.
                    "cmax": max(1.0, float(np.percentile(shifts, 99))) if len(shifts) else 1.0,
                    "colorscale": [[0, "var(--series-1)"], [1, "var(--series-2)"]],
                    "colorbar": {
                        "title": {"text": "shift, px", "side": "right"},
                        "thickness": 10,
                        "outlinewidth": 0,
                    },
                    "size": 5,
                    "opacity": 0.6,
                },
                "hovertemplate": "PyTorch %{x:.4f}<br>deployed %{y:.4f}<br>shift %{customdata:.3g} px<extra></extra>",
            }
        )
        only, other = pairs.alone
        traces.append(
            {
                "name": "without a partner",
                "meta": [name],
                "mode": "markers",
                "x": [*np.round(only, 5).tolist(), *[0.0] * len(other)],
                "y": [*[0.0] * len(only), *np.round(other, 5).tolist()],
                "marker": {"color": "var(--muted)", "symbol": "x-thin-open", "size": 7},
                "hovertemplate": "without a partner<br>PyTorch %{x:.4f}<br>deployed %{y:.4f}<extra></extra>",
                "cliponaxis": False,
            }
        )
    diagonal = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"color": "var(--muted)", "dash": "dot"}}
    layout = {
        "xaxis": {"title": {"text": "score in PyTorch"}, "range": [-0.02, 1]},
        "yaxis": {"title": {"text": "score in the deployed file"}, "range": [-0.02, 1]},
        "shapes": [diagonal],
        "showlegend": False,
    }
    caption = (
        f"Pairs of one class at IoU {PAIR_IOU} or more, {MOST_POINTS:,} of them at most: on the diagonal scores are "
        "equal, colour is the largest shift of a coordinate. Crosses on an axis: boxes that only one side has."
    )
    return Chart("Scores and box shifts", caption, traces, layout, (tuple(name for name, *_ in files),), height=400)


def pairs_of_boxes(record: DetectionRecord, name: str) -> Pairs:
    """Of the reference and a deployed file."""
    scores, apart = [], []
    alone: tuple[list[float], list[float]] = ([], [])
    for one, other in zip(record.detections[record.reference], record.detections[name], strict=True):
        pairs = match_boxes(one, other, iou=PAIR_IOU)
        for row, column in pairs:
            scores.append((float(one.scores[row]), float(other.scores[column])))
            apart.append(shift_of(one, row, other, column)[0])
        for side, found in enumerate((one, other)):
            paired = {pair[side] for pair in pairs}
            alone[side].extend(float(score) for at, score in enumerate(found.scores) if at not in paired)
    return Pairs(np.array(scores, np.float64).reshape(-1, 2), np.array(apart, np.float64), alone)
