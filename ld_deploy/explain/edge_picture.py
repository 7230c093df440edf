"""What localization distillation compares: the edge distributions of student and teacher at a few positives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.lines import Line2D

from ld_deploy.demo.pictures import STYLE
from ld_deploy.explain.panels import (
    STUDENT_COLOUR,
    TEACHER_COLOUR,
    TRUTH_COLOUR,
    Margins,
    corners_of,
    outline,
    panels,
    show_image,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ld_deploy.explain.positives import Positive
    from ld_deploy.explain.stills import Look

LIKELY, BINS_BEHIND = 0.01, 3
PANEL_INCHES = 2.0
# Of a rotated head's rows; the middle bin of the first two is the location itself.
AXES = {
    "centre x": "bins of one stride, location in the middle",
    "centre y": "bins of one stride, location in the middle",
    "half of w": "in strides",
    "half of h": "in strides",
    "angle": "bins of the half turn",
}
MARGINS = Margins(left=0.3, right=0.25, top=0.95, bottom=0.9, between_columns=0.55, between_rows=0.75)


def edge_figure(
    look: Look, positives: Sequence[Positive], *, classes: Sequence[str], temperature: float, title: str
) -> Figure:
    """A row for each positive: the boxes on a cut-out of the image, then its distributions.

    Args:
        look: its image.
        positives: one or more.
        classes: names.
        temperature: of the softened teacher; 1 draws none.
        title: of the figure.
    """
    with mpl.rc_context(STYLE):
        names = positives[0].row_names
        widths = (PANEL_INCHES, *[1.25 * PANEL_INCHES] * len(names))
        figure, grid = panels(len(positives), widths=widths, height=PANEL_INCHES, margins=MARGINS)
        last = max(last_bin(positive) for positive in positives)
        for row, positive in zip(grid, positives, strict=True):
            draw_boxes(row[0], look, positive, name=classes[positive.label])
            draw_sides(row[1:], positive, temperature=temperature, last=last)
        for axes, name in zip(grid[-1, 1:], names, strict=True):
            axes.set_xlabel(AXES.get(name, "distance from the location, in strides"), fontsize=9)
        lines: list[tuple[str, str, Any]] = [
            ("ground truth", TRUTH_COLOUR, "-"),
            ("teacher", TEACHER_COLOUR, "-"),
            ("student", STUDENT_COLOUR, "-"),
        ]
        if temperature != 1:
            lines.insert(2, (f"teacher at temperature {temperature:g}", TEACHER_COLOUR, "--"))
        handles = [
            Line2D([], [], color=colour, linestyle=style, linewidth=2, label=name) for name, colour, style in lines
        ]
        figure.suptitle(title, fontsize=12, y=1 - 0.12 / figure.get_figheight())
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), borderaxespad=0.3)
    return figure


def draw_boxes(axes: Axes, look: Look, positive: Positive, *, name: str) -> None:
    """The boxes of ground truth, teacher and student on the part of the image around them."""
    show_image(axes, look.image, canvas_hw=look.canvas_hw)
    truth, teacher, student = positive.truth, positive.teacher, positive.student
    outline(axes, [truth], colour=TRUTH_COLOUR, width=2.2)
    outline(axes, [teacher.box], colour=TEACHER_COLOUR)
    outline(axes, [student.box], colour=STUDENT_COLOUR)
    axes.plot(*positive.centre, marker="o", markersize=6, color="white", markeredgecolor="black")
    corners = corners_of(truth)
    middle = corners.mean(axis=0)
    reach = max(0.85 * np.ptp(corners, axis=0).max(), 2 * positive.stride)
    axes.set_xlim(middle[0] - reach, middle[0] + reach)
    axes.set_ylim(middle[1] + reach, middle[1] - reach)
    axes.set_title(
        f"{name}, stride {positive.stride:g}\nscore: teacher {teacher.score:.2f}, student {student.score:.2f}",
        fontsize=9,
    )


def last_bin(positive: Positive) -> int:
    """The last bin worth showing: a few behind the last that is likely, or true."""
    distributions = [edges.distribution() for edges in (positive.teacher, positive.student)]
    likely: int = max(int(np.flatnonzero((each > LIKELY).any(axis=0)).max()) for each in distributions)
    true = math.ceil(positive.places(positive.truth).max())
    bins: int = max(each.shape[1] for each in distributions)
    if "angle" in positive.row_names:
        return bins - 1
    last: int = min(max(likely, true) + BINS_BEHIND, bins - 1)
    return last


def draw_sides(row: Sequence[Axes], positive: Positive, *, temperature: float, last: int) -> None:
    """The distributions of the sides, in a common scale up to the bin `last`."""
    teacher, student = positive.teacher.distribution(), positive.student.distribution()
    soft = positive.teacher.distribution(temperature=temperature)
    values = [positive.places(box) for box in (positive.truth, positive.teacher.box, positive.student.box)]
    for side, (axes, name) in enumerate(zip(row, positive.row_names, strict=True)):
        wanted, by_teacher, by_student = (each[side] for each in values)
        axes.axvline(np.clip(wanted, 0, last), color=TRUTH_COLOUR, linewidth=2, alpha=0.85)
        if temperature != 1:
            axes.plot(soft[side], color=TEACHER_COLOUR, linestyle="--", linewidth=1.3)
        axes.plot(teacher[side], color=TEACHER_COLOUR, linewidth=2, marker="o", markersize=3)
        axes.plot(student[side], color=STUDENT_COLOUR, linewidth=2, marker="o", markersize=3)
        axes.set(
            xlim=(-0.4, last + 0.4), ylim=(0, 1.05), xticks=range(0, last + 1, max(1, last // 5)), yticks=(0, 0.5, 1)
        )
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.2)
        means = f"truth {wanted:.1f}, teacher {by_teacher:.1f}, student {by_student:.1f}"
        axes.set_title(f"{name}\n{means}", fontsize=9)
    row[0].set_ylabel("probability", fontsize=9, labelpad=1)
