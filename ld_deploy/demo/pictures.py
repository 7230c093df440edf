"""The report's pictures."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from ld_runtime.detector import Detector
from ld_runtime.draw import COLOURS
from ld_runtime.files import written_whole
from ld_runtime.parity import box_iou
from ld_runtime.preprocess import decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from ld_runtime.detections import Detections

SHOWN_SCORE = 0.3
RIGHT_IOU = 0.5
ROLE_COLOURS = {"teacher": "#444444", "student": "#0060a8", "ld_student": "#c1272d"}
SPAN_COLOURS = {"preprocess": "#8fb8de", "engine": "#0060a8", "decode and rest": "#c8c8c8", "as a whole": "#888888"}
STYLE: dict[Any, Any] = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


def save(figure: Figure, path: Path) -> None:
    """As PNG, whole or not at all."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=130, bbox_inches="tight", facecolor="white")


def draw_curves(curves: Mapping[str, Mapping[str, Any]], *, titles: Mapping[str, str], path: Path) -> None:
    """Detection loss and validation AP over the epochs.

    Args:
        curves: by role, `loss` and `val_ap` as lists of [epoch, value].
        titles: of the roles.
        path: of the PNG.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.6))
        left, right = figure.subplots(1, 2)
        for role, curve in curves.items():
            epochs, losses = np.transpose(curve["loss"]) if curve["loss"] else ([], [])
            left.plot(epochs, losses, color=ROLE_COLOURS[role], label=titles[role], linewidth=1.5)
            epochs, aps = np.transpose(curve["val_ap"]) if curve["val_ap"] else ([], [])
            right.plot(epochs, aps, color=ROLE_COLOURS[role], label=titles[role], marker="o", markersize=4)
        left.set(xlabel="epoch", ylabel="detection loss (without distillation terms)")
        right.set(xlabel="epoch", ylabel="AP on the validation split")
        for axes in (left, right):
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.25)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        right.legend(loc="upper left")
        figure.tight_layout(w_pad=3)
        save(figure, path)


def draw_spans(measurements: Sequence[Mapping[str, Any]], *, path: Path) -> None:
    """One bar a runner, in medians: preprocess, engine, and what is left of end to end.

    Args:
        measurements: of the benchmark's JSON.
        path: of the PNG.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.6 + 0.5 * len(measurements)))
        axes = figure.subplots()
        for row, one in enumerate(measurements):
            medians = {span: latency["median_ms"] for span, latency in one["spans"].items()}
            whole = medians.pop("end_to_end")
            parts = {**medians, "decode and rest": max(0.0, whole - sum(medians.values()))} if medians else {}
            start = 0.0
            for span, width in (parts or {"as a whole": whole}).items():
                axes.barh(row, width, left=start, color=SPAN_COLOURS[span], height=0.62)
                start += width
            axes.text(whole, row, f"  {whole:.1f} ms", va="center", fontsize=9)
        names = [f"{one['name']}.onnx" if one["name"] in ROLE_COLOURS else one["name"] for one in measurements]
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("ms from the image file to the boxes, one image at a time, median")
        handles = [Patch(color=colour, label=span) for span, colour in SPAN_COLOURS.items()]
        axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(handles), borderaxespad=0.2)
        save(figure, path)


def draw_detections(output: Path, *, titles: Mapping[str, str], count: int, path: Path) -> None:
    """A row for each image: ground truth, then what the deployed file of each role sees.

    Args:
        output: the demo's folder, with data/ and ROLE.onnx.
        titles: of the roles, in the order of the columns.
        count: of images, evenly over the test split, those without objects left out.
        path: of the PNG.
    """
    truth = json.loads((output / "data" / "annotations" / "instances_test.json").read_text(encoding="utf-8"))
    detectors = {role: Detector(output / f"{role}.onnx") for role in titles}
    names = [category["name"] for category in truth["categories"]]
    chosen = choose_images(truth, count=count)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.6 * (len(titles) + 1), 2.6 * len(chosen)))
        grid = figure.subplots(len(chosen), len(titles) + 1, squeeze=False)
        for axes, title in zip(grid[0], ("ground truth", *titles.values()), strict=True):
            axes.set_title(title, fontsize=11)
        for row, record in zip(grid, chosen, strict=True):
            image = decode(output / "data" / "test" / record["file_name"])
            wanted = [one for one in truth["annotations"] if one["image_id"] == record["id"] and not one["iscrowd"]]
            boxes = np.array([one["bbox"] for one in wanted], np.float32)
            boxes[:, 2:] += boxes[:, :2]
            labels = np.array([one["category_id"] - 1 for one in wanted])
            show(row[0], image, boxes, labels, right=np.ones(len(labels), bool))
            for axes, detector in zip(row[1:], detectors.values(), strict=True):
                found = detector(image).above(SHOWN_SCORE)
                show(axes, image, found.boxes, found.labels, right=is_right(found, boxes, labels))
        handles = [Patch(color=COLOURS[label], label=name) for label, name in enumerate(names)]
        figure.tight_layout(pad=0.6)
        figure.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=len(names), fontsize=10)
        save(figure, path)


def choose_images(truth: Mapping[str, Any], *, count: int) -> list[Mapping[str, Any]]:
    """Evenly spread records of images with a wanted object: nobody picked them for their results."""
    with_objects = {one["image_id"] for one in truth["annotations"] if not one["iscrowd"]}
    records = [record for record in truth["images"] if record["id"] in with_objects]
    places = np.unique(np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int))
    return [records[place] for place in places]


def is_right(found: Detections, boxes: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each detection, whether it is the best so far on a wanted object of its class, at `RIGHT_IOU` or more.

    Args:
        found: of one image, best first.
        boxes: (m, 4) wanted, x1 y1 x2 y2 in pixels.
        labels: (m,) of these.
    """
    overlaps = box_iou(found.boxes, boxes) * (found.labels[:, None] == labels)
    right = np.zeros(len(found), bool)
    free = np.ones(len(labels), bool)
    for row, overlap in enumerate(overlaps):
        best = int(np.argmax(overlap * free))
        right[row] = free[best] and overlap[best] >= RIGHT_IOU
        free[best] &= not right[row]
    return right


def show(
    axes: Axes,
    image: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    right: NDArray[np.bool_],
) -> None:
    """One image with its boxes, coloured by class; those that are not right are thin and dashed."""
    axes.imshow(image[..., ::-1], interpolation="nearest")
    axes.set_axis_off()
    for (x1, y1, x2, y2), label, solid in zip(boxes.tolist(), labels, right, strict=True):
        # A white edge keeps a line readable on any background.
        lines = (("white", 3.4, "-"), (COLOURS[label], 2.0, "-")) if solid else ((COLOURS[label], 1.2, (0, (4, 2))),)
        for colour, width, style in lines:
            frame = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, clip_on=False)
            frame.set(edgecolor=colour, linewidth=width, linestyle=style)
            axes.add_patch(frame)
