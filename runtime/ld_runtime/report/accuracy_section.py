"""Precision by recall, confusion, classes, and the worst images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.coco import precision_by_recall
from ld_runtime.report.blocks import COLOURS, Chart, Mark, Overlay, Overlays, Section, label
from ld_runtime.report.embed import data_uri
from ld_runtime.report.evaluation import (
    IOU,
    SCORE_THRESHOLD,
    confusion,
    score_image,
    truths_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.detection_record import DetectionRecord
    from ld_runtime.report.blocks import Block
    from ld_runtime.report.evaluation import ImageScore, Truth
    from ld_runtime.report.material import Parity

WORST = 8


def accuracy_section(records: Sequence[tuple[Parity, DetectionRecord]], parities: Sequence[Parity]) -> Section | None:
    """PR curves and confusion of each record, AP by class of each parity."""
    blocks: list[Block] = [class_chart(one) for one in parities if one.reference_accuracy.per_class]
    for parity, record in records:
        blocks += [pr_chart(parity, record), confusion_chart(parity, record)]
    return Section("accuracy", "Accuracy", blocks) if blocks else None


def worst_section(records: Sequence[tuple[Parity, DetectionRecord]]) -> Section | None:
    """The worst images of each record whose images are still there."""
    blocks: list[Block] = [
        worst_images(parity, record) for parity, record in records if all(path.is_file() for path in record.paths)
    ]
    return Section("images", "Worst images", blocks) if blocks else None


def class_chart(parity: Parity) -> Chart:
    """AP of each class, reference and deployed files side by side."""
    names = list(parity.reference_accuracy.per_class)
    sources = {parity.reference: parity.reference_accuracy} | {one.name: one.accuracy for one in parity.files}
    traces = [
        {
            "type": "bar",
            "name": label(name),
            "x": [label(one) for one in names],
            "y": [accuracy.per_class.get(one) for one in names],
            "marker": {"color": COLOURS[at % len(COLOURS)]},
            "hovertemplate": "%{x}<br>AP %{y:.4f}<extra>" + label(name) + "</extra>",
        }
        for at, (name, accuracy) in enumerate(sources.items())
    ]
    caption = f"{parity.path.name}: AP by class, 0-1. Bars of one class should be level. {parity.data}."
    return Chart("AP by class", caption, traces, {"barmode": "group", "yaxis": {"title": {"text": "AP"}}})


def pr_chart(parity: Parity, record: DetectionRecord) -> Chart:
    """Precision by recall of every source, at IoU 0.50, 0.75 and over all."""
    names = {one["id"]: one["name"] for one in record.document["categories"]}
    image_ids = [one["id"] for one in record.document["images"]]
    traces: list[dict[str, Any]] = []
    for at, (source, found) in enumerate(record.detections.items()):
        rows = [
            row
            for image_id, one in zip(image_ids, found, strict=True)
            for row in one.to_coco(image_id=image_id, category_ids=record.category_ids)
        ]
        curves = precision_by_recall(record.document, rows)
        for dash, (iou, by_class) in zip(("solid", "dash", "dot"), curves.items(), strict=True):
            known = [curve for curve in by_class.values() if curve is not None]
            every = {"all classes": np.mean(known, axis=0) if known else None}
            for name, curve in {**every, **{names[key]: one for key, one in by_class.items()}}.items():
                if curve is not None:
                    traces.append(
                        {
                            "name": f"{label(source)}, {iou}",
                            "meta": name,
                            "mode": "lines",
                            "visible": True if iou == "IoU 0.50" else "legendonly",
                            "x": [step / 100 for step in range(101)],
                            "y": [round(float(value), 4) for value in curve],
                            "line": {"color": COLOURS[at % len(COLOURS)], "dash": dash, "width": 2},
                            "hovertemplate": f"{label(source)}, {iou}<br>recall %{{x:.2f}}: precision %{{y:.3f}}"
                            "<extra></extra>",
                        }
                    )
    layout = {
        "xaxis": {"title": {"text": "recall"}, "range": [0, 1.01]},
        "yaxis": {"title": {"text": "precision"}, "range": [0, 1.03]},
    }
    caption = (
        f"{parity.path.name}: precision at each recall; where curves lie on each other, sources agree. "
        "The legend has IoU 0.75 and the mean too."
    )
    choices = ("all classes", *names.values())
    return Chart("Precision by recall", caption, traces, layout, choices=choices, height=440)


def confusion_chart(parity: Parity, record: DetectionRecord) -> Chart:
    """Of every source; the reference first."""
    by_id = {one["id"]: one["name"] for one in record.document["categories"]}
    names = [*(label(by_id[one]) for one in record.category_ids), "background"]
    truths = truths_of(record)
    traces = []
    for source, found in record.detections.items():
        counts = confusion(truths, found, classes=len(record.category_ids))
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        traces.append(
            {
                "type": "heatmap",
                "meta": source,
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
        "yaxis": {"title": {"text": "is"}, "type": "category", "autorange": "reversed", "showgrid": False},
    }
    caption = (
        f"{parity.path.name}: boxes with a score above {SCORE_THRESHOLD}, paired at IoU {IOU} whatever their class. "
        "Last column: missed. Last row: said where nothing is. Shade: share of the row."
    )
    height = 180 + min(26 * len(names), 900)
    return Chart("Confusion", caption, traces, layout, choices=tuple(record.detections), height=max(360, height))


def worst_images(parity: Parity, record: DetectionRecord) -> Overlays:
    """Lowest F1 of the deployed file that differs most from the reference in AP."""
    difference = {one.name: abs(one.difference.ap) if one.difference else 0.0 for one in parity.files}
    deployed = max(difference, key=lambda name: difference[name])
    truths = truths_of(record)
    scores = {name: list(map(score_image, truths, record.detections[name])) for name in (record.reference, deployed)}
    own = scores[deployed]
    order = sorted(range(len(truths)), key=lambda at: (own[at].f1, -len(own[at].missed) - len(own[at].wrong)))
    by_id = {one["id"]: one["name"] for one in record.document["categories"]}
    names = [by_id[one] for one in record.category_ids]
    images = []
    for at in order[:WORST]:
        one = own[at]
        panels = [("ground truth", _truth_marks(truths[at], one, names))]
        panels += [
            (source, _found_marks(record, source, at, scores[source][at], names))
            for source in (record.reference, deployed)
        ]
        told = f"{len(one.hits)} found, {len(one.missed)} missed, {len(one.wrong)} wrong"
        width, height = (record.document["images"][at][key] for key in ("width", "height"))
        caption = f"{record.paths[at].name}: F1 {one.f1:.2f}; {told}"
        images.append(Overlay(data_uri(record.paths[at], longest=480), width, height, caption, panels))
    caption = (
        f"The {len(images)} images of {parity.path.name} with the lowest F1 of {deployed} (score above "
        f"{SCORE_THRESHOLD}, IoU {IOU}). Blue: found. Orange, dashed: missed in the ground truth, wrong in a detector."
    )
    return Overlays(f"Lowest F1 of {deployed}", caption, images)


def _truth_marks(truth: Truth, score: ImageScore, names: Sequence[str]) -> list[Mark]:
    return [
        _mark(box, names[one], wrong=at in score.missed)
        for at, (box, one) in enumerate(zip(truth.boxes, truth.labels, strict=True))
    ]


def _found_marks(
    record: DetectionRecord, source: str, image: int, score: ImageScore, names: Sequence[str]
) -> list[Mark]:
    found = record.detections[source][image].above(SCORE_THRESHOLD)
    return [
        _mark(box, f"{names[one]} {value:.2f}", wrong=at in score.wrong)
        for at, (box, value, one) in enumerate(zip(found.boxes, found.scores, found.labels, strict=True))
    ]


def _mark(box: Any, text: str, *, wrong: bool) -> Mark:
    x1, y1, x2, y2 = (round(float(side), 1) for side in box)
    return Mark(x1, y1, round(x2 - x1, 1), round(y2 - y1, 1), text, wrong)
