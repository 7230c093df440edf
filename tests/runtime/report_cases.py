"""A small run on disk: a verify's JSON with its record, a benchmark, a training; names as bad as names can be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from ld_runtime.detection_record import DetectionRecord, record_path
from ld_runtime.detections import Detections

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EVIL = "<script>alert(1)</script>"
CLASSES = ("disc", EVIL)
TRUTH = {0: [(0, 10, 10, 20, 20), (1, 50, 50, 30, 30)], 1: [(0, 5, 5, 40, 40)]}


def latency(median: float, **more: Any) -> dict[str, Any]:
    return {"median_ms": median, "p90_ms": median + 1, "p99_ms": median + 2, "mean_ms": median, "n": 9, **more}


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    values = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(values[:, :4].astype(np.float32), values[:, 4].astype(np.float32), values[:, 5].astype(np.int64))


REFERENCE = (
    detections((10, 10, 30, 30, 0.9, 0), (50, 50, 80, 80, 0.8, 1), (0, 60, 20, 80, 0.1, 0)),
    detections((5, 5, 45, 45, 0.7, 0)),
)
DEPLOYED = (
    detections((10, 10, 30, 30.5, 0.88, 0), (50, 50, 80, 80, 0.75, 0)),  # the second is of the wrong class
    detections((60, 60, 90, 90, 0.6, 1)),  # nothing is there
)


def document() -> dict[str, Any]:
    return {
        "images": [{"id": at, "file_name": f"{at}.png", "height": 100, "width": 100} for at in TRUTH],
        "categories": [{"id": at + 1, "name": name} for at, name in enumerate(CLASSES)],
        "annotations": [
            {"id": 10 * at + number, "image_id": at, "category_id": label + 1, "bbox": [x, y, w, h], "area": w * h}
            | {"iscrowd": 0}
            for at, boxes in TRUTH.items()
            for number, (label, x, y, w, h) in enumerate(boxes, start=1)
        ],
    }


def accuracy(ap: float) -> dict[str, Any]:
    return {"ap": ap, "ap50": ap + 0.1, "ap75": ap + 0.05, "per_class_ap": {"disc": ap, EVIL: ap / 2}}


FACTS = {"version": "1", "device": "cpu", "precision": "fp32", "nms": "native", "backend": "onnxruntime"}
MACHINE = {"cpu": "CPU", "cores": 2, "gpus": [], "versions": {"numpy": "2"}}
AGREEMENT = {
    "images": 2,
    "matched_pairs": 1,
    "matched_share": 0.2857,
    "iou": 0.99,
    "max_score_difference": 0.0234,
    "max_box_difference_px": 0.5,
    "unmatched": [{"cause": "vote"}, {"cause": "vote"}, {"cause": "tie"}],
}


def write_images(folder: Path) -> list[Path]:
    folder.mkdir(parents=True)
    images = [folder / f"{at}.png" for at in TRUTH]
    for path in images:
        cv2.imwrite(str(path), np.full((100, 100, 3), 90, np.uint8))
    return images


def write_parity(
    path: Path,
    *,
    images: list[Path],
    checkpoint: str,
    reference_ap: float,
    files: dict[str, tuple[float, Mapping[str, Any], Mapping[str, Any], tuple[Detections, ...]]],
    failures: tuple[str, ...] = (),
) -> dict[str, Any]:
    """A verify's JSON and the record beside it; gives the JSON's content.

    Args:
        path: of the JSON.
        images: of the record.
        checkpoint: SHA-256 of the reference.
        reference_ap: its AP.
        files: by name: AP, agreement, facts with `sha256`, detections.
        failures: of the verdict.
    """
    content = {
        "reference": "PyTorch",
        "ap": {"PyTorch": accuracy(reference_ap)} | {name: accuracy(ap) for name, (ap, *_) in files.items()},
        "ap_difference": {name: round(ap - reference_ap, 6) for name, (ap, *_) in files.items()},
        "agreement": {name: agreement for name, (_, agreement, *_) in files.items()},
        "beside": {},
        "failures": list(failures),
        "passed": not failures,
        "images": 2,
        "split": "test",
        "boxes": 3,
        "checkpoint_sha256": checkpoint,
        "models": {name: facts for name, (_, _, facts, _) in files.items()},
        "machine": MACHINE,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    found = {"PyTorch": REFERENCE} | {name: detections for name, (*_, detections) in files.items()}
    DetectionRecord("PyTorch", images, document(), (1, 2), found).write(record_path(path))
    return content


def write_bench(path: Path, measurements: list[dict[str, Any]]) -> None:
    content = {
        "machine": MACHINE,
        "images": {"count": 2},
        "settings": {"device": "cpu", "seconds": 1.0, "batch_sizes": [1]},
        "measurements": measurements,
    }
    path.write_text(json.dumps(content), encoding="utf-8")


def write_run(folder: Path) -> Path:
    """Makes it; gives the folder."""
    images = write_images(folder / "images")
    failures = ("a.onnx: AP differs by -0.0691, allowed are 0.0002",)
    files = {"a.onnx": (0.5432, AGREEMENT, {"sha256": "a" * 64, **FACTS}, DEPLOYED)}
    write_parity(
        folder / "parity.json", images=images, checkpoint="c" * 64, reference_ap=0.6123, files=files, failures=failures
    )
    quantiles = {"0": 6.5, "50": 7.25, "100": 12.0}
    spans = {"engine": latency(5), "end_to_end": latency(7.25, quantiles_ms=quantiles)}
    settings = {"model": "a.onnx", "model_sha256": "a" * 64, "file_mb": 1.25, **FACTS}
    torch = {"precision": "fp32", "checkpoint_sha256": "c" * 64}
    write_bench(
        folder / "bench.json",
        [
            {"name": "a.onnx", "settings": settings, "spans": spans, "fps": 133.7},
            {"name": "PyTorch", "settings": torch, "spans": {"end_to_end": latency(29)}, "fps": 25.0},
        ],
    )
    write_log(folder / "student")
    return folder


def write_log(folder: Path) -> None:
    logs = folder / "20260101_000000" / "vis_data"
    logs.mkdir(parents=True)
    lines: list[dict[str, Any]] = [
        {"loss": 3.0, "loss_cls": 2.0, "loss_bbox": 1.0, "share_cls": 0.6, "grad_cls": 0.5, "epoch": 1, "step": 10},
        {"coco/bbox_mAP": 0.25, "step": 1},
        {"loss": 2.0, "loss_cls": 1.5, "loss_bbox": 0.5, "share_cls": 0.7, "grad_cls": 0.4, "epoch": 2, "step": 20},
        {"coco/bbox_mAP": 0.375, "step": 2},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"loss": 1'  # killed while it wrote
    (logs / "scalars.json").write_text(text, encoding="utf-8")
