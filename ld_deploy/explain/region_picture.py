"""Where knowledge is transferred: each region's weights over the image, level by level."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D

from ld_deploy.demo.pictures import STYLE
from ld_deploy.explain.panels import DPI, TRUTH_COLOUR, Margins, outline, panels, show_image
from ld_deploy.explain.shares import short_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from torch import Tensor

    from ld_deploy.explain.stills import Look

HEAT = mpl.colormaps["YlOrRd"]
LOWEST_HEAT = 0.25  # of the colour map: the smallest weight still stands out from a light grey image
PANEL_INCHES = 2.3
LONGEST_NAME = 14  # characters that fit at the left of a row
SMALL_CELL = 5  # dots: one is drawn with an edge, so that it can be seen
MARGINS = Margins(left=1.75, right=0.9, top=0.65, bottom=0.4, between_columns=0.1, between_rows=0.28)


@dataclass(frozen=True, eq=False)
class LevelWeights:
    """A region on one level.

    Args:
        stride: of the level, in pixels.
        centres: float (m, 2), x y in pixels of the padded image: the locations inside the region.
        weights: float (m,), above 0; of several priors at a location the largest.
        count: locations of the level.
    """

    stride: float
    centres: NDArray[np.float64]
    weights: NDArray[np.float64]
    count: int


@dataclass(frozen=True, eq=False)
class RegionWeights:
    """A region of one image.

    Args:
        name: with its options.
        used_by: short names of the terms that use it.
        levels: finest first.
    """

    name: str
    used_by: Sequence[str]
    levels: Sequence[LevelWeights]


def region_weights(model: Any, look: Look) -> list[RegionWeights]:
    """The regions of a config on one image; terms that share one share its row."""
    rows: dict[int, tuple[str, Tensor, list[str]]] = {}
    for place, term in enumerate(model.distillation.terms):
        weights = look.regions[place]
        options = "".join(f"\n{name}={value}" for name, value in term.region_options.items())
        cross = "\n(cross branch)" if term.branch == "cross" else ""
        row = rows.setdefault(id(weights), (f"{term.region}{options}{cross}", weights, []))
        row[2].append(short_name(term.loss_name))
    return [RegionWeights(name, terms, by_level(model, look, weights)) for name, weights, terms in rows.values()]


def by_level(model: Any, look: Look, weights: Tensor) -> list[LevelWeights]:
    """Splits weights (1, L) into levels; L may be the teacher's, with other priors at the same locations."""
    head, assigned = model.bbox_head, look.batch.assigned
    centres = look.batch.overlaps.prior_centres[0].double().cpu().numpy()
    each = head.num_base_priors
    locations = [size // each for size in assigned.level_sizes]
    values = weights[0].double().cpu().numpy().reshape(sum(locations), -1).max(axis=1)
    levels, start = [], 0
    for stride, count in zip(head.prior_generator.strides, locations, strict=True):
        level = slice(start, start + count)
        inside = values[level] > 0
        levels.append(LevelWeights(stride[0], centres[::each][level][inside], values[level][inside], count))
        start += count
    return levels


def region_figure(look: Look, regions: Sequence[RegionWeights], *, title: str) -> Figure:
    """A row for each region, a column for each level; the colour is the weight, each row with a scale of its own."""
    height, width = look.canvas_hw
    boxes = look.batch.gt_boxes[0].cpu().numpy()
    columns = max(len(region.levels) for region in regions)
    with mpl.rc_context(STYLE):
        panel_height = PANEL_INCHES * min(1.5, max(0.5, height / width))
        figure, grid = panels(len(regions), widths=[PANEL_INCHES] * columns, height=panel_height, margins=MARGINS)
        for row, region in zip(grid, regions, strict=True):
            largest = max((level.weights.max() for level in region.levels if len(level.weights)), default=0.0)
            scale = Normalize(0, largest or 1)
            for axes, level in zip(row, region.levels, strict=True):
                show_image(axes, look.image, canvas_hw=look.canvas_hw, pale=True)
                dots = level.stride * PANEL_INCHES * DPI / width
                axes.add_collection(cells(level, scale, edge=0.8 if dots < SMALL_CELL else 0), autolim=False)
                outline(axes, boxes, colour=TRUTH_COLOUR)
                inside = f"{len(level.weights) or 'none'} of {level.count} locations"
                axes.set_title(f"stride {level.stride:g}: {inside}", fontsize=9, pad=4)
            label_row(row[0], region)
            _, y, _, tall = row[-1].get_position().bounds
            bar = figure.add_axes((1 - 0.75 / figure.get_figwidth(), y, 0.13 / figure.get_figwidth(), tall))
            figure.colorbar(ScalarMappable(scale, HEAT), cax=bar)
            bar.set_title("weight", fontsize=9, pad=4)
            bar.tick_params(labelsize=8)
        figure.suptitle(title, fontsize=12, y=1 - 0.12 / figure.get_figheight())
        truth = Line2D([], [], color=TRUTH_COLOUR, linewidth=2, label="ground truth")
        figure.legend(handles=[truth], loc="lower center", fontsize=9, borderaxespad=0.3)
    return figure


def label_row(axes: Axes, region: RegionWeights) -> None:
    """Writes a region's name, its options and its terms at the left of its row."""
    name, *options = region.name.split("\n")
    if len(name) > LONGEST_NAME:
        name = name.replace("_", "_\n")
    details = "\n".join(
        [*options, textwrap.fill(f"for {', '.join(region.used_by)}", LONGEST_NAME + 8, break_long_words=False)]
    )
    for text, vertical, size, weight in ((name, "bottom", 11, "bold"), (details, "top", 8, "normal")):
        axes.text(-0.05, 0.5, text, transform=axes.transAxes, ha="right", va=vertical, fontsize=size, weight=weight)


def cells(level: LevelWeights, scale: Normalize, *, edge: float) -> PolyCollection:
    """A square of one stride around each location, coloured by its weight; the largest weights on top."""
    half = level.stride / 2
    corners = np.array([(-half, -half), (half, -half), (half, half), (-half, half)])
    order = np.argsort(level.weights, kind="stable")
    colours = HEAT(LOWEST_HEAT + (1 - LOWEST_HEAT) * np.asarray(scale(level.weights[order])))
    colours[:, 3] = 0.8
    return PolyCollection(level.centres[order, None] + corners, facecolors=colours, edgecolors=colours, linewidths=edge)
