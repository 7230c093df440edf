"""What `ld_runtime.coco_stream.write_coco` writes, put together in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ld_runtime.detections import Detections


def coco_document(
    images: Sequence[tuple[str, tuple[int, int]]], detections: Sequence[Detections], *, class_names: Sequence[str]
) -> dict[str, Any]:
    """Detections as a COCO file that says everything about itself: `pycocotools.coco.COCO(file)` loads it.

    Its `annotations` carry a `score`, so they are COCO result rows as well. `category_id` is the label + 1: some
    readers take 0 for the background.

    Args:
        images: file name and (height, width) in pixels of each image. Its id is its place in this list.
        detections: of each image.
        class_names: the name of each label.
    """
    category_ids = range(1, len(class_names) + 1)
    rows = [
        row
        for image_id, one in enumerate(detections)
        for row in one.to_coco(image_id=image_id, category_ids=category_ids)
    ]
    for number, row in enumerate(rows, start=1):
        row.update(id=number, area=row["bbox"][2] * row["bbox"][3], iscrowd=0)
    return {
        "images": [
            {"id": image_id, "file_name": name, "height": height, "width": width}
            for image_id, (name, (height, width)) in enumerate(images)
        ],
        "annotations": rows,
        "categories": [{"id": one, "name": name} for one, name in zip(category_ids, class_names, strict=True)],
    }
