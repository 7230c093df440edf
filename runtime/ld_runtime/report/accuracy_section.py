"""Precision by recall, confusion, and AP by class, of all sources together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.coco import precision_by_recall
from ld_runtime.report.blocks import COLOURS, DASHES, Chart, Section, label
from ld_runtime.report.evaluation import IOU, SCORE_THRESHOLD, confusion, truths_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.detection_record import DetectionRecord
    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Parity

EVERY = "all classes"


@dataclass(frozen=True)
class Source:
    """One set of detections of a record.

    Args:
        record: that holds it.
        key: of it there.
        name: as the page calls it.
        line: colour by model, dash by source.
    """

    record: DetectionRecord
    key: str
    name: str
    line: dict[str, Any]


def accuracy_section(records: Sequence[tuple[Parity, DetectionRecord]], parities: Sequence[Parity]) -> Section | None:
    """AP by class of the parities; PR curves of the records, those of the same images in one chart; confusion."""
    blocks: list[Block] = [*class_charts([one for one in parities if one.reference_accuracy.per_class])]
    if records:
        blocks.append(confusion_chart(sources_of(records)))
    blocks += [
        pr_chart(sources_of([one for one in records if one[0].data == data]), data=data)
        for data in dict.fromkeys(parity.data for parity, _ in records)
    ]
    return Section("accuracy", "Accuracy", blocks) if blocks else None


def sources_of(records: Sequence[tuple[Parity, DetectionRecord]]) -> list[Source]:
    """All of them, the reference of each record first."""
    return [
        Source(
            record,
            key,
            parity.label(key),
            {"color": COLOURS[model % len(COLOURS)], "dash": DASHES[at % len(DASHES)], "width": 2},
        )
        for model, (parity, record) in enumerate(records)
        for at, key in enumerate(record.detections)
    ]


def class_charts(parities: Sequence[Parity]) -> list[Chart]:
    """AP of each class, by model: reference and deployed files side by side."""
    if not parities:
        return []
    traces = []
    for parity in parities:
        sources = {parity.label(parity.reference): parity.reference_accuracy}
        sources |= {one.label: one.accuracy for one in parity.files}
        traces += [
            {
                "type": "bar",
                "meta": [parity.model],
                "name": label(name),
                "x": [label(one) for one in parity.reference_accuracy.per_class],
                "y": [accuracy.per_class.get(one) for one in parity.reference_accuracy.per_class],
                "marker": {"color": COLOURS[at % len(COLOURS)]},
                "hovertemplate": "%{x}<br>AP %{y:.4f}<extra>" + label(name) + "</extra>",
            }
            for at, (name, accuracy) in enumerate(sources.items())
        ]
    layout = {"barmode": "group", "yaxis": {"title": {"text": "AP"}}, "xaxis": {"type": "category"}}
    menus = (tuple(dict.fromkeys(one.model for one in parities)),)
    return [Chart("AP by class", "AP 0-1. Bars of one class should be level.", traces, layout, menus)]


def pr_chart(sources: Sequence[Source], *, data: str) -> Chart:
    """Precision by recall of every source on the same images: a menu of the IoU, and one of the class."""
    traces: list[dict[str, Any]] = []
    ious: dict[str, None] = {}
    classes: dict[str, None] = {EVERY: None}
    for source in sources:
        document = source.record.document
        names = {one["id"]: one["name"] for one in document["categories"]}
        classes |= dict.fromkeys(names.values())
        rows = [
            row
            for image, one in zip(document["images"], source.record.detections[source.key], strict=True)
            for row in one.to_coco(image_id=image["id"], category_ids=source.record.category_ids)
        ]
        for iou, by_class in precision_by_recall(document, rows).items():
            ious[iou] = None
            known = [curve for curve in by_class.values() if curve is not None]
            every = {EVERY: np.mean(known, axis=0) if known else None}
            for name, curve in {**every, **{names[key]: one for key, one in by_class.items()}}.items():
                if curve is not None:
                    traces.append(
                        {
                            "name": label(source.name),
                            "meta": [iou, name],
                            "mode": "lines",
                            "x0": 0,
                            "dx": 0.01,
                            "y": [round(float(value), 4) for value in curve],
                            "line": source.line,
                            "hovertemplate": f"{label(source.name)}<br>recall %{{x:.2f}}: precision %{{y:.3f}}"
                            "<extra></extra>",
                        }
                    )
    layout = {
        "xaxis": {"title": {"text": "recall"}, "range": [0, 1.01]},
        "yaxis": {"title": {"text": "precision"}, "range": [0, 1.03]},
    }
    caption = f"Precision at each recall; where curves lie on each other, sources agree. {data}."
    return Chart("Precision by recall", caption, traces, layout, (tuple(ious), tuple(classes)))


def confusion_chart(sources: Sequence[Source]) -> Chart:
    """Of every source."""
    traces = []
    longest = 0
    for source in sources:
        record = source.record
        by_id = {one["id"]: one["name"] for one in record.document["categories"]}
        names = [*(label(by_id[one]) for one in record.category_ids), "background"]
        longest = max(longest, len(names))
        counts = confusion(truths_of(record), record.detections[source.key], classes=len(record.category_ids))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        traces.append(
            {
                "type": "heatmap",
                "meta": [source.name],
                "x": names,
                "y": names,
                "z": np.round(shares, 4).tolist(),
                "text": counts.tolist(),
                "texttemplate": "%{text}" if len(names) <= 25 else "",
                "colorscale": [[0, "var(--surface)"], [1, "var(--series-1)"]],
                "zmin": 0,
                "zmax": 1,
                "showscale": False,
                "xgap": 1,
                "ygap": 1,
                "hovertemplate": "is %{y}, said %{x}: %{text} (%{z:.1%} of the row)<extra></extra>",
            }
        )
    layout = {
        "xaxis": {"title": {"text": "said"}, "type": "category", "showgrid": False},
        "yaxis": {
            "title": {"text": "is", "standoff": 8},
            "type": "category",
            "autorange": "reversed",
            "showgrid": False,
        },
    }
    caption = (
        f"Boxes with a score above {SCORE_THRESHOLD}, paired at IoU {IOU} whatever their class. "
        "Last column: missed. Last row: said where nothing is. Shade: share of the row."
    )
    menus = (tuple(source.name for source in sources),)
    return Chart("Confusion", caption, traces, layout, menus, height=max(340, 180 + min(26 * longest, 900)))
