"""AP and time of the voting NMS against plain class-wise NMS, on stored candidates of a real detector."""

from __future__ import annotations

import json
import time
import zipfile
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.ops import batched_nms

from ld_deploy.voting_nms import cluster_diou_nms_torch
from ld_export.nms_function import INPUTS, OUTPUTS, nms_model
from ld_export.onnx_check import compare_with_twin, open_session
from ld_runtime.bench_report import machine, sha256_of
from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.coco import evaluate_boxes
from ld_runtime.detections import Detections
from ld_runtime.errors import DataError
from ld_runtime.model_card import NmsSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

REPEATS = 3
FORMS = ("numpy twin", "torch form", "ONNX function", "plain NMS (torchvision)")


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of one image, best first: boxes (n, 4) in pixels of the original, scores (n,), labels (n,)."""

    image_id: int
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def best(self, *, top_k: int, score_threshold: float) -> list[NDArray[Any]]:
        """Boxes, scores and labels of the best `top_k` above the threshold."""
        above = self.scores[:top_k] > score_threshold
        return [one[:top_k][above] for one in (self.boxes, self.scores, self.labels)]


def read_candidates(path: Path) -> list[Candidates]:
    """Reads an `.npz` of `boxes`, `scores`, `labels` over all images, `counts` and `image_ids` by image.

    Raises:
        DataError: It cannot be read, or an array is missing or too short.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in ("boxes", "scores", "labels", "counts", "image_ids")}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        message = f"cannot read candidates from {path}: {error}"
        raise DataError(f"{message}; it must be an .npz of boxes, scores, labels, counts and image_ids") from error
    ends = np.cumsum(arrays["counts"])
    if not len(ends) or ends[-1] != len(arrays["scores"]):
        raise DataError(f"{path} holds {len(arrays['scores'])} candidates, its counts say {ends[-1:].sum()}")
    return [
        Candidates(
            int(image_id),
            arrays["boxes"][end - count : end].astype(np.float32),
            arrays["scores"][end - count : end].astype(np.float32),
            arrays["labels"][end - count : end].astype(np.int64),
        )
        for image_id, count, end in zip(arrays["image_ids"], arrays["counts"], ends, strict=True)
    ]


def nms_report(
    candidates: Path,
    *,
    ground_truth: Path,
    top_k: Sequence[int] = (1000, 3000),
    settings: NmsSettings | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs every form of the NMS on the same candidates, in one process.

    Args:
        candidates: see `read_candidates`.
        ground_truth: COCO document; label i is its category of the i-th smallest id.
        top_k: how many candidates of an image go in: one case each.
        settings: of the NMS.
        progress: gets one line before each case.

    Returns:
        The JSON's content: per case, AP of each, time of each, largest differences from the numpy twin.

    Raises:
        DataError: A file cannot be used.
        ParityError: The forms do not give the same detections.
    """
    settings = settings or NmsSettings()
    images = read_candidates(candidates)
    try:
        truth = json.loads(ground_truth.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the ground truth {ground_truth}: {error}; it must be a COCO JSON") from error
    cases = []
    for count in top_k:
        progress(f"{len(images)} images, the best {count} candidates each")
        cases.append(_case(images, truth, top_k=count, settings=settings))
    return {
        "candidates_sha256": sha256_of(candidates),
        "ground_truth_sha256": sha256_of(ground_truth),
        "images": len(images),
        "settings": asdict(settings),
        "plain_nms_iou_threshold": 0.6,
        "torch_threads": torch.get_num_threads(),
        "time_is": f"of the NMS alone, per image, arrays in host memory; best of {REPEATS} runs in a row",
        "cases": cases,
        "machine": machine(),
    }


def _case(images: list[Candidates], truth: dict[str, Any], *, top_k: int, settings: NmsSettings) -> dict[str, Any]:
    session = open_session(nms_model(settings=settings))
    keywords = asdict(settings)

    def twin(boxes: Any, scores: Any, labels: Any) -> Any:
        return cluster_diou_nms(boxes, scores, labels, **keywords)

    def torch_form(boxes: Any, scores: Any, labels: Any) -> Any:
        found = cluster_diou_nms_torch(
            torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), **keywords
        )
        return tuple(one.numpy() for one in found)

    def onnx_function(boxes: Any, scores: Any, labels: Any) -> Any:
        feed = dict(zip(INPUTS, (boxes[None], scores[None], labels[None]), strict=True))
        number, *found = session.run(list(OUTPUTS), feed)
        return tuple(one[0, : number[0, 0]] for one in found)

    def plain(boxes: Any, scores: Any, labels: Any) -> Any:
        keep = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), 0.6)
        kept = keep[: settings.max_detections].numpy()
        return boxes[kept], scores[kept], labels[kept]

    forms = dict(zip(FORMS, (twin, torch_form, onnx_function, plain), strict=True))
    category_ids = sorted(category["id"] for category in truth["categories"])
    milliseconds: dict[str, list[float]] = {name: [] for name in forms}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in forms}
    differences = {name: 0.0 for name in FORMS[1:3]}
    sizes = []
    for image in images:
        arrays = image.best(top_k=top_k, score_threshold=settings.score_threshold)
        sizes.append(len(arrays[1]))
        for name, form in forms.items():
            elapsed, found = _timed(form, arrays) if len(arrays[1]) else (0.0, tuple(arrays))
            milliseconds[name].append(elapsed)
            rows[name] += Detections(*found).to_coco(image_id=image.image_id, category_ids=category_ids)
            if name in differences:
                worst = compare_with_twin(arrays, found, settings=settings)
                differences[name] = max(differences[name], worst)
    return {
        "top_k": top_k,
        "candidates": {"median": float(np.median(sizes)), "max": max(sizes), "images_at_top_k": sizes.count(top_k)},
        "same_detections_as_twin": {name: True for name in differences},  # otherwise ParityError was raised
        "max_box_difference_px": differences,
        "latency_ms": {name: _distribution(values) for name, values in milliseconds.items()},
        "ap": {name: _three(truth, found) for name, found in rows.items()},
    }


def _timed(form: Callable[..., Any], arrays: list[NDArray[Any]]) -> tuple[float, Any]:
    """Milliseconds and result of the fastest of `REPEATS` runs: the machine's other work is not the NMS's."""
    best = float("inf")
    found = None
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = form(*arrays)
        best = min(best, (time.perf_counter() - start) * 1e3)
    return best, found


def _distribution(values: list[float]) -> dict[str, float]:
    median, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return {"median": median, "p90": p90, "p99": p99, "n": len(values)}


def _three(truth: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, float | None]:
    result = evaluate_boxes(truth, rows)
    return {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}
