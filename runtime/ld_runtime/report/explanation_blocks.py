"""What `ld-deploy verify --explain` found: the stage that owns a difference, and how far the head's maps lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_runtime.report.blocks import Cell, Table, number

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.material import Parity

STAGES = ("preprocess", "trunk", "decode", "NMS")


def explanation_tables(parities: Sequence[Parity]) -> list[Table]:
    """One of stages and one of levels, over all files that were explained; none where no file was."""
    told = [(one.label, one.explanation) for parity in parities for one in parity.files if one.explanation]
    if not told:
        return []
    stages = []
    for name, found in told:
        chain = found.get("chain", [])[1:]  # the first is PyTorch alone; there is none where stages cannot be swapped
        moved = [number(step["moved"], "d") for step in chain] or [Cell("-")] * len(STAGES)
        stages.append((Cell(name), Cell(found["sentence"]), *moved))
    caption = (
        "PyTorch's stages are replaced by the file's, one after the other; the figures are the boxes that each step "
        "moves: no partner at IoU 0.99 with a score within 0.01."
    )
    title = "Which stage owns a difference"
    tables = [Table(title, ("file", "in a sentence", *STAGES), stages, caption, text_columns=(0, 1))]
    levels = [
        (
            Cell(name),
            number(level["stride"], "d"),
            number(level["class_logits"]["mean"], ".2g"),
            number(level["scores"]["max"], ".2g"),
            *(number(level["edges_px"][key], ".2g") for key in ("mean", "p99", "max")),
        )
        for name, found in told
        for level in found.get("levels", [])
    ]
    if levels:
        headings = ("file", "stride", "logit, mean", "score, max", "edge px, mean", "edge px, p99", "edge px, max")
        caption = "Absolute differences of the head's maps from PyTorch's on one canvas, edges after their expectation."
        tables.append(Table("Before the NMS, by level", headings, levels, caption))
    return tables
