"""A COCO file from a journal, without holding it in memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ld_runtime.detection_journal import JournalEntry


def write_coco(path: Path, entries: Callable[[], Iterator[JournalEntry]], *, class_names: Sequence[str]) -> int:
    """Writes a COCO file that says everything about itself, entry by entry: `pycocotools.coco.COCO(path)` loads it.

    Its `annotations` carry a `score`, so they are COCO result rows as well. `category_id` is the label + 1: some
    readers take 0 for the background.

    Args:
        path: where the file is to be.
        entries: begins to read them anew each time: they are gone through twice. Refused ones are left out. The id of
            an image or frame is its place among the others. `time_s` and `track_id` are there where they are known.
        class_names: the name of each label.

    Returns:
        How many detections were written.

    Raises:
        LdDeployError: The file cannot be written.
    """
    category_ids = range(1, len(class_names) + 1)
    categories = [{"id": one, "name": name} for one, name in zip(category_ids, class_names, strict=True)]
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write('{"images": [')
        _write_all(file, (_image(number, one) for number, one in enumerate(_used(entries()))))
        file.write('], "annotations": [')
        count = _write_all(file, _annotations(_used(entries()), category_ids))
        file.write(f'], "categories": {json.dumps(categories)}}}')
    return count


def _used(entries: Iterator[JournalEntry]) -> Iterator[JournalEntry]:
    return (one for one in entries if one.detections is not None)


def _image(number: int, entry: JournalEntry) -> dict[str, Any]:
    assert entry.image_hw is not None
    time = {} if entry.time_s is None else {"time_s": entry.time_s}
    return {"id": number, "file_name": entry.name, "height": entry.image_hw[0], "width": entry.image_hw[1], **time}


def _annotations(entries: Iterator[JournalEntry], category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    count = 0
    for image_id, entry in enumerate(entries):
        assert entry.detections is not None
        for index, row in enumerate(entry.detections.to_coco(image_id=image_id, category_ids=category_ids)):
            count += 1
            width, height = row.get("rotated_bbox", row["bbox"])[2:4]
            row.update(id=count, area=width * height, iscrowd=0)
            if entry.track_ids is not None and entry.track_ids[index] >= 0:
                row["track_id"] = entry.track_ids[index]
            yield row


def _write_all(file: Any, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):
        file.write(f"{',' if count > 1 else ''}\n{json.dumps(row)}")
    return count
