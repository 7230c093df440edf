"""The ground truth of any mmdet detection data set as a COCO document."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import DataError
from ld_runtime.model_card import SIDES
from ld_runtime.rotated_boxes import hulls_of, polygons_of

if TYPE_CHECKING:
    from mmengine.config import Config


@dataclass(frozen=True, eq=False)
class Truth:
    """What detections are measured against.

    Args:
        dataset: mmdet's, with its test pipeline.
        indices: of the records that are evaluated.
        paths: image file of each.
        image_ids: COCO id of each.
        category_ids: COCO id of each label.
        document: COCO `images`, `annotations`, `categories` of these records; its images in their order.
        degenerate_boxes: boxes with a side of less than a pixel, left out. A COCO annotation file keeps its own.
    """

    dataset: Any
    indices: tuple[int, ...]
    paths: tuple[Path, ...]
    image_ids: tuple[int, ...]
    category_ids: tuple[int, ...]
    document: dict[str, Any]
    degenerate_boxes: int


def load_truth(settings: dict[str, Any] | Config, *, limit: int | None = None) -> Truth:
    """Builds a data set and reads its ground truth.

    Args:
        settings: the data set's config.
        limit: take the first so many images.

    Raises:
        DataError: The annotations or an image are not there, or nothing is listed.
    """
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    settings = {**settings, "test_mode": True}
    try:
        # Unserialised, so that an empty list is told here and not by numpy.
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how long its index took
            dataset = DATASETS.build({**settings, "serialize_data": False})
    except FileNotFoundError as error:
        message = f"the data set cannot be read: {error}"
        raise DataError(f"{message}; look at data_root and ann_file in test_dataloader.dataset") from error
    if limit is not None and limit < 1:
        raise DataError(f"limit must be 1 or more, got {limit}")
    indices = tuple(range(len(dataset) if limit is None else min(limit, len(dataset))))
    records = [dataset.get_data_info(index) for index in indices]
    if not records:
        raise DataError("the data set lists no image: look at ann_file and data_root in the config")
    paths = tuple(Path(record["img_path"]) for record in records)
    if missing := [path for path in paths if not path.is_file()]:
        message = f"{len(missing)} of {len(paths)} images are not there, the first is {missing[0]}"
        raise DataError(f"{message}: look at data_prefix in the config")
    degenerate = 0
    if isinstance(dataset, CocoDataset):
        image_ids = tuple(int(record["img_id"]) for record in records)
        category_ids = tuple(int(one) for one in dataset.cat_ids)
        document = _of_coco_file(Path(dataset.ann_file), image_ids=image_ids, category_ids=category_ids)
    else:
        image_ids = tuple(indices)
        category_ids = tuple(range(1, len(dataset.metainfo["classes"]) + 1))
        document, degenerate = _of_records(records, names=tuple(dataset.metainfo["classes"]))
    return Truth(
        dataset=dataset,
        indices=indices,
        paths=paths,
        image_ids=image_ids,
        category_ids=category_ids,
        document=document,
        degenerate_boxes=degenerate,
    )


def _of_coco_file(path: Path, *, image_ids: tuple[int, ...], category_ids: tuple[int, ...]) -> dict[str, Any]:
    """The file's own annotations, with their areas and crowds, of the images and classes in question."""
    content = json.loads(path.read_text(encoding="utf-8"))
    images, categories = set(image_ids), set(category_ids)
    by_id = {one["id"]: one for one in content["images"]}
    return {
        "images": [by_id[one] for one in image_ids],
        "annotations": [
            one for one in content["annotations"] if one["image_id"] in images and one["category_id"] in categories
        ],
        "categories": [one for one in content["categories"] if one["id"] in categories],
    }


def _of_records(records: list[dict[str, Any]], *, names: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """COCO document of mmdet's records, and how many degenerate boxes it leaves out."""
    from ld_deploy.data_check import is_degenerate

    annotations: list[dict[str, Any]] = []
    degenerate = 0
    for image_id, record in enumerate(records):
        for instance in record["instances"]:
            if is_degenerate(instance["bbox"]):
                degenerate += 1
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(instance["bbox_label"]) + 1,
                    **_box_fields([float(number) for number in instance["bbox"]]),
                    "iscrowd": int(instance.get("ignore_flag", 0)),
                }
            )
    images = [
        {"id": image_id, "file_name": Path(one["img_path"]).name, "height": one["height"], "width": one["width"]}
        for image_id, one in enumerate(records)
    ]
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(names)]
    return {"images": images, "annotations": annotations, "categories": categories}, degenerate


def _box_fields(box: list[float]) -> dict[str, Any]:
    """`bbox` and `area` of a box x1 y1 x2 y2; of cx cy w h angle also what `Detections.to_coco` writes of one."""
    if len(box) == SIDES["xyxy"]:
        x1, y1, x2, y2 = box
        return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1)}
    row = np.array([box], np.float32)
    x1, y1, x2, y2 = hulls_of(row)[0].tolist()
    return {
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": box[2] * box[3],
        "segmentation": [polygons_of(row).ravel().tolist()],
        "rotated_bbox": box,
    }
