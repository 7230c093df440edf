"""Deployed files against their reference, box by box."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.parity import match_boxes
from ld_runtime.report.blocks import COLOURS, Cell, Chart, Section, Table, label, number
from ld_runtime.report.explanation_blocks import explanation_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.detection_record import DetectionRecord
    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Parity

PAIR_IOU = 0.5
MOST_POINTS = 2500


def parity_section(records: Sequence[tuple[Parity, DetectionRecord]], parities: Sequence[Parity]) -> Section | None:
    """A table of all, then scores and shifts of those with a record."""
    judged = [one for one in parities if any(file.matched_share is not None for file in one.files)]
    blocks: list[Block] = [agreement_table(judged), *explanation_tables(judged)] if judged else []
    for parity, record in records:
        blocks += pair_charts(parity, record)
    return Section("parity", "Parity", blocks) if blocks else None


def agreement_table(parities: Sequence[Parity]) -> Table:
    """How the boxes agree, and the cause of each that has no partner."""
    rows = []
    for parity in parities:
        for one in parity.files:
            causes = ", ".join(f"{cause} {count}" for cause, count in sorted(one.causes.items())) or "none"
            rows.append(
                (
                    Cell(one.name),
                    Cell(causes),
                    number(one.matched_share, ".3%"),
                    number(one.max_box_shift_px, ".3g"),
                    number(sum(one.causes.values()), "d"),
                )
            )
    headings = ("file", "unmatched, by cause", "matched", "largest shift, px", "unmatched")
    caption = (
        "Pairs: one class, IoU 0.99 or more. Causes, the first that holds: at the score threshold; cut at the most "
        "detections; a tie; at the NMS threshold; moved by a vote; unexplained."
    )
    return Table("Agreement with PyTorch", headings, rows, caption, text_columns=2)


def pair_charts(parity: Parity, record: DetectionRecord) -> list[Chart]:
    """Scores of pairs against each other, and how far their boxes lie apart."""
    scatters, shifts = [], []
    deployed = [name for name in record.detections if name != record.reference]
    for at, name in enumerate(deployed):
        scores, apart = _pairs(record, name)
        keep = np.linspace(0, len(scores) - 1, min(len(scores), MOST_POINTS)).astype(int)
        scatters.append(
            {
                "name": label(name),
                "meta": name,
                "mode": "markers",
                "x": np.round(scores[keep, 0], 5).tolist(),
                "y": np.round(scores[keep, 1], 5).tolist(),
                "marker": {"color": COLOURS[at % len(COLOURS)], "size": 5, "opacity": 0.45},
                "hovertemplate": "PyTorch %{x:.4f}<br>deployed %{y:.4f}<extra></extra>",
            }
        )
        percent = np.arange(0, 101)
        shifts.append(
            {
                "name": label(name),
                "mode": "lines",
                "x": [float(f"{max(value, 1e-6):.4g}") for value in np.percentile(apart, percent)]
                if len(apart)
                else [],
                "y": percent.tolist(),
                "line": {"color": COLOURS[at % len(COLOURS)], "width": 2},
                "hovertemplate": "%{y} % of the pairs within %{x:.3g} px<extra>" + label(name) + "</extra>",
            }
        )
    diagonal = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"color": "var(--muted)", "dash": "dot"}}
    score_layout = {
        "xaxis": {"title": {"text": "score in PyTorch"}, "range": [0, 1]},
        "yaxis": {"title": {"text": "score in the deployed file"}, "range": [0, 1]},
        "shapes": [diagonal],
        "showlegend": False,
    }
    told = f"Pairs of one class at IoU {PAIR_IOU} or more"
    score_caption = f"{parity.path.name}: {told}, {MOST_POINTS:,} of them at most. On the diagonal, scores are equal."
    shift_layout = {
        "xaxis": {"title": {"text": "shift, px"}, "type": "log", "exponentformat": "power"},
        "yaxis": {"title": {"text": "% of the pairs"}},
    }
    shift_caption = (
        f"{parity.path.name}: largest shift of one coordinate. {told}. Log scale; 0 is drawn at a millionth."
    )
    return [
        Chart("Scores", score_caption, scatters, score_layout, choices=tuple(deployed), height=420),
        Chart("Box shifts", shift_caption, shifts, shift_layout),
    ]


def _pairs(record: DetectionRecord, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scores float64 (n, 2) of reference and deployed file, and the largest shift of a coordinate in pixels (n,)."""
    scores, apart = [], []
    for one, other in zip(record.detections[record.reference], record.detections[name], strict=True):
        for row, column in match_boxes(one, other, iou=PAIR_IOU):
            scores.append((float(one.scores[row]), float(other.scores[column])))
            apart.append(float(np.abs(one.boxes[row] - other.boxes[column]).max()))
    return np.array(scores, np.float64).reshape(-1, 2), np.array(apart, np.float64)
