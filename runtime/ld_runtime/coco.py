"""COCO's files and metric. The only module that names pycocotools and category ids."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import BackendMissingError, DataError
from ld_runtime.rotated_eval import RotatedImage, evaluate_rotated, precision_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's metric over boxes, from 0 to 1; None where there is no ground truth of that size or class.

    Args:
        ap: mean over IoU 0.50:0.05:0.95, all classes, all areas, at most 100 detections an image.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_small: boxes below 32 * 32 pixels.
        ap_medium: boxes between.
        ap_large: boxes above 96 * 96 pixels.
        per_class_ap: `ap` of each class by its name.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    per_class_ap: dict[str, float | None]


def evaluate_boxes(ground_truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> AveragePrecision:
    """AP of detections, by pycocotools; of rotated ones by `ld_runtime.rotated_eval`.

    Args:
        ground_truth: a COCO file's content: `images`, `annotations`, `categories`. Neither argument is changed. Where
            the boxes are rotated each annotation has `rotated_bbox`: cx cy w h angle; a crowd is a difficult one.
        rows: COCO result rows, as `Detections.to_coco` makes them. None at all is an AP of 0.

    Raises:
        DataError: There is no ground truth, a row names an image or category that it does not have, or detections are
            rotated and the ground truth is not.
        BackendMissingError: pycocotools is not installed.
    """
    _check_rows(ground_truth, rows)
    if is_rotated(ground_truth):
        return _evaluate_rotated(ground_truth, rows)
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BackendMissingError("COCO's AP needs pycocotools: pip install 'ld-deploy[coco]'") from error

    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(COCO(), ground_truth, ground_truth["annotations"])
        evaluation = COCOeval(truth, _indexed(COCO(), ground_truth, rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()

    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (IoUs, recalls, classes), all areas, 100 detections
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    per_class = {
        names[category_id]: _mean_of_valid(precision[:, :, index])
        for index, category_id in enumerate(evaluation.params.catIds)
    }
    ap, ap50, ap75, ap_small, ap_medium, ap_large = (_none_if_absent(value) for value in evaluation.stats[:6])
    return AveragePrecision(
        ap=ap,
        ap50=ap50,
        ap75=ap75,
        ap_small=ap_small,
        ap_medium=ap_medium,
        ap_large=ap_large,
        per_class_ap=per_class,
    )


def is_rotated(ground_truth: Mapping[str, Any]) -> bool:
    """Whether the annotations of a COCO document are rotated boxes."""
    return any("rotated_bbox" in one for one in ground_truth["annotations"])


def _check_rows(ground_truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    for key in ("images", "annotations", "categories"):
        if not ground_truth.get(key):
            raise DataError(f"the ground truth has no {key}: AP of nothing says nothing; check the annotation file")
    for key, of in (("image_id", "images"), ("category_id", "categories")):
        unknown = {row[key] for row in rows} - {one["id"] for one in ground_truth[of]}
        if unknown:
            some = sorted(unknown)[:5]
            message = f"{len(unknown)} {key} of the detections are not among the {of} of the ground truth, such as"
            raise DataError(f"{message} {some}: the annotation file is of another data set")
    if any("rotated_bbox" in row for row in rows) and not is_rotated(ground_truth):
        message = "the detections are rotated boxes, the ground truth has upright ones (no `rotated_bbox`)"
        raise DataError(f"{message}: `ld-deploy verify CONFIG CHECKPOINT MODEL` measures a rotated model by its config")


def rotated_images(ground_truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[RotatedImage]:
    """Detections and truth of each image of a rotated COCO document, a label being the place of its category."""
    label_of = {one["id"]: label for label, one in enumerate(ground_truth["categories"])}
    found: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in ground_truth["images"]}
    truth: dict[int, list[Mapping[str, Any]]] = {image["id"]: [] for image in ground_truth["images"]}
    for row in rows:
        found[row["image_id"]].append(row)
    for one in ground_truth["annotations"]:
        truth[one["image_id"]].append(one)

    def columns(of: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
        boxes = np.array([one["rotated_bbox"] for one in of], np.float32).reshape(-1, 5)
        return boxes, np.array([label_of[one["category_id"]] for one in of], np.int64)

    images = []
    for image_id, own in found.items():
        boxes, labels = columns(own)
        true_boxes, true_labels = columns(truth[image_id])
        scores = np.array([row["score"] for row in own], np.float32)
        difficult = np.array([bool(one.get("iscrowd")) for one in truth[image_id]], bool)
        images.append(RotatedImage(boxes, scores, labels, true_boxes, true_labels, difficult))
    return images


def _evaluate_rotated(ground_truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> AveragePrecision:
    names = [one["name"] for one in ground_truth["categories"]]
    found = evaluate_rotated(rotated_images(ground_truth, rows), class_names=names)
    per_class = {name: float(found.by_class[name].mean()) if name in found.by_class else None for name in names}
    return AveragePrecision(
        ap=found.ap,
        ap50=found.ap50,
        ap75=found.ap75,
        ap_small=None,
        ap_medium=None,
        ap_large=None,
        per_class_ap=per_class,
    )


def precision_by_recall(
    ground_truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[int, Any]]:
    """Precision at recall 0.00, 0.01, ..., 1.00: COCO's over all areas with at most 100 detections an image.

    Of rotated boxes that of `ld_runtime.rotated_eval.precision_at`.

    Args:
        ground_truth: as `evaluate_boxes` takes it.
        rows: likewise.

    Returns:
        For `IoU 0.50`, `IoU 0.75` and `mean` over IoU 0.50:0.05:0.95: float64 (101,) by category id; None for a class
        without ground truth.

    Raises:
        BackendMissingError: pycocotools is not installed.
    """
    if is_rotated(ground_truth):
        return _rotated_precision_by_recall(ground_truth, rows)
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise BackendMissingError("precision by recall needs pycocotools: pip install 'ld-deploy[coco]'") from error

    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(COCO(), ground_truth, ground_truth["annotations"])
        evaluation = COCOeval(truth, _indexed(COCO(), ground_truth, rows), "bbox")
        evaluation.params.areaRng = evaluation.params.areaRng[:1]
        evaluation.params.areaRngLbl = evaluation.params.areaRngLbl[:1]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, 0]  # (IoUs, recalls, classes)
    chosen = {"IoU 0.50": precision[0], "IoU 0.75": precision[5], "mean": precision.mean(axis=0)}
    return {
        name: {
            category_id: None if (curves[:, at] < 0).any() else curves[:, at]
            for at, category_id in enumerate(evaluation.params.catIds)
        }
        for name, curves in chosen.items()
    }


def _rotated_precision_by_recall(
    ground_truth: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> dict[str, dict[int, Any]]:
    names = {one["id"]: one["name"] for one in ground_truth["categories"]}
    found = precision_at(
        rotated_images(ground_truth, rows), class_names=list(names.values()), recalls=np.linspace(0, 1, 101)
    )
    curves = {category_id: found.get(name) for category_id, name in names.items()}
    return {
        name: {key: None if one is None else one[chosen].mean(axis=0) for key, one in curves.items()}
        for name, chosen in (("IoU 0.50", [0]), ("IoU 0.75", [5]), ("mean", slice(None)))
    }


def _indexed(empty: Any, ground_truth: Mapping[str, Any], boxes: Sequence[Mapping[str, Any]]) -> Any:
    """A COCO object made in memory: `loadRes` refuses an empty list, and writes into the rows."""
    annotations = [
        {"id": number, "area": box["bbox"][2] * box["bbox"][3], "iscrowd": 0, **box}
        for number, box in enumerate(boxes, start=1)
    ]
    empty.dataset = {
        "images": ground_truth["images"],
        "categories": ground_truth["categories"],
        "annotations": annotations,
    }
    empty.createIndex()
    return empty


def _mean_of_valid(precision: Any) -> float | None:
    valid = precision[precision > -1]
    return float(np.mean(valid)) if valid.size else None


def _none_if_absent(value: float) -> float | None:
    """Translates the -1 by which pycocotools says that there is no ground truth."""
    return None if value < 0 else float(value)
