"""Images to look at: where a file fails, and where it is not what PyTorch is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ld_runtime.report.blocks import Lines, Mark, Overlay, Overlays, Section
from ld_runtime.report.differences import NEAR_IOU, NEAR_SCORE, SAME_IOU, SAME_SCORE, difference_of
from ld_runtime.report.embed import data_uri
from ld_runtime.report.evaluation import IOU, SCORE_THRESHOLD, score_image, truths_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ld_runtime.detection_record import DetectionRecord
    from ld_runtime.detections import Detections
    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Parity

MOST = 4


def images_section(records: Sequence[tuple[Parity, DetectionRecord]]) -> Section | None:
    """Of each deployed file whose images are still there; the file first that differs most from PyTorch in AP."""
    files = [
        (file, parity, record)
        for parity, record in records
        if all(path.is_file() for path in record.paths)
        for file in parity.files
        if file.name in record.detections
    ]
    files.sort(key=lambda one: -abs(one[0].difference.ap) if one[0].difference else 0.0)
    if not files:
        return None
    worst = {file.label: worst_images(parity, record, file.name) for file, parity, record in files}
    different = {file.label: most_different(parity, record, file.name) for file, parity, record in files}
    blocks: list[Block] = [
        Overlays(
            "Lowest agreement with the ground truth",
            f"The images with the lowest F1 (score above {SCORE_THRESHOLD}, IoU {IOU}). Blue: found. Orange, dashed: "
            "missed in the ground truth, wrong in a detector.",
            worst,
        )
    ]
    title = "Most different from PyTorch"
    if changed := {name: images for name, images in different.items() if images}:
        caption = (
            f"The images whose boxes differ most, of boxes with a score above {SCORE_THRESHOLD} on either side. "
            f"Orange, dashed: the other has no such box (class, IoU {NEAR_IOU}, score within {NEAR_SCORE})."
        )
        blocks.append(Overlays(title, caption, changed))
    if same := [name for name, images in different.items() if not images]:
        line = (
            f"{', '.join(same)}: no box with a score above {SCORE_THRESHOLD} differs from PyTorch's in any image "
            f"(class, IoU {SAME_IOU}, score within {SAME_SCORE})."
        )
        blocks.append(Lines("" if changed else title, [line]))
    return Section("images", "Worst images", blocks)


def worst_images(parity: Parity, record: DetectionRecord, name: str) -> list[Overlay]:
    """Lowest F1 first; among equals, most mistakes."""
    truths = truths_of(record)
    sources = (record.reference, name)
    scores = {key: list(map(score_image, truths, record.detections[key])) for key in sources}
    own = scores[name]
    order = sorted(range(len(truths)), key=lambda at: (own[at].f1, -len(own[at].missed) - len(own[at].wrong)))
    found = []
    for at in order[:MOST]:
        one = own[at]
        panels = [("ground truth", _truth_marks(truths[at], record, one.missed))]
        for key in sources:
            shown = record.detections[key][at].above(SCORE_THRESHOLD)
            panels.append((parity.label(key), _marks(shown, range(len(shown)), record, scores[key][at].wrong)))
        told = f"F1 {one.f1:.2f}; {len(one.hits)} found, {len(one.missed)} missed, {len(one.wrong)} wrong"
        found.append(_overlay(record, at, told, panels))
    return found


def most_different(parity: Parity, record: DetectionRecord, name: str) -> list[Overlay]:
    """Images in which a box differs, the largest difference first; none where none does."""
    sources = (record.reference, name)
    pairs = list(zip(*(record.detections[key] for key in sources), strict=True))
    differences = [difference_of(*pair) for pair in pairs]
    order = sorted(range(len(pairs)), key=lambda at: -differences[at].size)
    truths = truths_of(record)
    found = []
    for at in order[:MOST]:
        one = differences[at]
        if not one.size:
            break
        panels = [("ground truth", _truth_marks(truths[at], record, ()))]
        for side, key in enumerate(sources):
            panels.append((parity.label(key), _marks(pairs[at][side], one.shown[side], record, one.apart[side])))
        told = f"without such a partner: {len(one.apart[0])} of {len(one.shown[0])} boxes in PyTorch, "
        found.append(_overlay(record, at, f"{told}{len(one.apart[1])} of {len(one.shown[1])} deployed", panels))
    return found


def _overlay(record: DetectionRecord, at: int, told: str, panels: list[tuple[str, list[Mark]]]) -> Overlay:
    width, height = (record.document["images"][at][key] for key in ("width", "height"))
    path = record.paths[at]
    return Overlay(data_uri(path, longest=480), width, height, f"{path.name}: {told}", panels)


def _truth_marks(truth: Detections, record: DetectionRecord, wrong: Sequence[int]) -> list[Mark]:
    return [
        _mark(box, _class(record, one), wrong=at in wrong)
        for at, (box, one) in enumerate(zip(truth.boxes, truth.labels, strict=True))
    ]


def _marks(found: Detections, shown: Iterable[int], record: DetectionRecord, wrong: Sequence[int]) -> list[Mark]:
    return [
        _mark(found.boxes[at], f"{_class(record, found.labels[at])} {found.scores[at]:.2f}", wrong=at in wrong)
        for at in shown
    ]


def _class(record: DetectionRecord, index: int) -> str:
    """Name of a class index."""
    by_id = {one["id"]: one["name"] for one in record.document["categories"]}
    return str(by_id[record.category_ids[index]])


def _mark(box: Any, text: str, *, wrong: bool) -> Mark:
    if len(box) == 5:
        x, y, width, height, angle = map(float, box)
        left, top = round(x - width / 2, 1), round(y - height / 2, 1)
        return Mark(left, top, round(width, 1), round(height, 1), text, wrong, angle)
    x1, y1, x2, y2 = (round(float(side), 1) for side in box)
    return Mark(x1, y1, round(x2 - x1, 1), round(y2 - y1, 1), text, wrong)
