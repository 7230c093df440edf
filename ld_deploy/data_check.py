"""What a data set holds, looked at before hours are spent on it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import DataError
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class DataSummary:
    """Counts of one split.

    Args:
        images: images listed.
        empty_images: of these, without a usable box.
        boxes: usable boxes.
        degenerate_boxes: boxes of less than one pixel a side, which training and evaluation leave out.
        boxes_per_class: usable boxes by class name.
    """

    images: int
    empty_images: int
    boxes: int
    degenerate_boxes: int
    boxes_per_class: dict[str, int]

    def __str__(self) -> str:
        classes = ", ".join(f"{name} {count}" for name, count in self.boxes_per_class.items())
        text = f"{self.images} images ({self.empty_images} without boxes), {self.boxes} boxes: {classes}"
        return text + (f"; {self.degenerate_boxes} degenerate boxes left out" if self.degenerate_boxes else "")


def is_degenerate(box: Sequence[float]) -> bool:
    """Whether a box x1 y1 x2 y2, or cx cy w h angle, in pixels has a side of less than one pixel."""
    if len(box) == 5:
        return min(box[2:4]) < 1
    return box[2] - box[0] < 1 or box[3] - box[1] < 1


def check_dataset(data_list: Sequence[dict[str, Any]], *, classes: Sequence[str], name: str) -> DataSummary:
    """Counts, and refuses what cannot be trained on.

    Args:
        data_list: mmdet's records: `img_path` and `instances` with `bbox` and `bbox_label`.
        classes: class names of the config.
        name: of the split, for the message.

    Raises:
        DataError: No image, an image file that is not there, or no usable box of any class.
    """
    if not data_list:
        raise DataError(f"the {name} split lists no image: look at ann_file and data_root in the config")
    missing = [record["img_path"] for record in data_list if not Path(record["img_path"]).is_file()]
    if missing:
        message = (
            f"{len(missing)} images of the {name} split are not there, the first is {missing[0]}: look at data_prefix"
        )
        raise DataError(message)
    counts: Counter[str] = Counter(dict.fromkeys(classes, 0))
    degenerate = empty = 0
    for record in data_list:
        usable = [each for each in record["instances"] if not is_degenerate(each["bbox"])]
        degenerate += len(record["instances"]) - len(usable)
        empty += not usable
        counts.update(classes[each["bbox_label"]] for each in usable)
    if not counts.total():
        message = (
            f"the {name} split has no box of the classes {', '.join(classes)}: "
            "the class names in the config must be those of the annotations, letter for letter"
        )
        raise DataError(message)
    return DataSummary(len(data_list), empty, counts.total(), degenerate, dict(counts))


def check_categories(annotations: Path, *, classes: Sequence[str]) -> None:
    """Refuses a COCO file whose categories are not the config's classes: mmdet numbers them by the file, unasked.

    A class that the file lacks would move the labels of all behind it, another order would exchange them.

    Args:
        annotations: COCO file of a data set that mmdet has read.
        classes: class names of the config.

    Raises:
        DataError: A class is no category of the file, or they stand in another order there.
    """
    categories = [one["name"] for one in json.loads(annotations.read_text(encoding="utf-8"))["categories"]]
    if missing := [name for name in classes if name not in categories]:
        guess = nearest(missing[0], categories) or ";"
        message = f"{annotations} has no category {', '.join(missing)}{guess} it has: {', '.join(categories)}"
        raise DataError(f"{message}. Write metainfo.classes as the file has them")
    ordered = [name for name in categories if name in classes]
    if ordered != list(classes):
        message = f"{annotations} has the classes in another order than the config, which would exchange them"
        raise DataError(f"{message}: write metainfo.classes as {tuple(ordered)}")
