"""AP and time of the voting NMS against plain class-wise NMS, on stored candidates of a real detector."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torchvision.ops import batched_nms

from ld_deploy.voting_nms import cluster_diou_nms_torch
from ld_export.nms_function import INPUTS, OUTPUTS, nms_model
from ld_export.onnx_check import compare_voted, open_session
from ld_runtime.bench_report import machine, sha256_of
from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.coco import evaluate_boxes
from ld_runtime.detections import Detections
from ld_runtime.errors import DataError
from ld_runtime.model_card import NmsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TWIN, TORCH, ONNX, PLAIN = "numpy twin", "torch form", "ONNX function", "plain NMS (torchvision)"
PLAIN_IOU = 0.6

Form = Callable[[Any, Any, Any], Any]


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
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
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
    top_k: Sequence[int] = (1000,),
    settings: NmsSettings | None = None,
    threads: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs every form of the NMS on the same candidates, in one process.

    Args:
        candidates: see `read_candidates`.
        ground_truth: COCO document; label i is its category of the i-th smallest id.
        top_k: how many candidates of an image go in: one case each.
        settings: of the NMS.
        threads: of torch and of ONNX Runtime; the numpy twin and torchvision's NMS have one in any case.
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
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for count in top_k:
            progress(f"{len(images)} images, the best {count} candidates each")
            cases.append(_case(images, truth, top_k=count, settings=settings, threads=threads))
    finally:
        torch.set_num_threads(torch_threads)
    return {
        "candidates_sha256": sha256_of(candidates),
        "ground_truth_sha256": sha256_of(ground_truth),
        "images": len(images),
        "settings": asdict(settings),
        "plain_nms_iou_threshold": PLAIN_IOU,
        "threads": threads,
        "time_is": "of the NMS alone, per image, arrays in host memory, second of two runs; one form after the other",
        "cases": cases,
        "machine": machine(),
    }


def _case(
    images: list[Candidates], truth: dict[str, Any], *, top_k: int, settings: NmsSettings, threads: int
) -> dict[str, Any]:
    inputs = [image.best(top_k=top_k, score_threshold=settings.score_threshold) for image in images]
    category_ids = sorted(category["id"] for category in truth["categories"])
    latency: dict[str, dict[str, float]] = {}
    ap: dict[str, dict[str, float | None]] = {}
    differences: dict[str, float] = {}
    expected: list[Any] = []
    # One form after the other: the idle threads of one library spin, and would slow the next one down.
    for name, make in (
        (TWIN, _twin),
        (TORCH, _torch_form),
        (ONNX, partial(_onnx_function, threads=threads)),
        (PLAIN, _plain),
    ):
        form = make(settings)
        timed = [_timed(form, arrays) for arrays in inputs]
        latency[name] = _distribution([milliseconds for milliseconds, _ in timed])
        rows = [
            row
            for image, (_, found) in zip(images, timed, strict=True)
            for row in Detections(*found).to_coco(image_id=image.image_id, category_ids=category_ids)
        ]
        result = evaluate_boxes(truth, rows)
        ap[name] = {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75}
        if name == TWIN:
            expected = [found for _, found in timed]
        elif name != PLAIN:
            pairs = zip(expected, timed, strict=True)
            differences[name] = max(compare_voted(one, found) for one, (_, found) in pairs)
    sizes = [len(arrays[1]) for arrays in inputs]
    return {
        "top_k": top_k,
        "candidates": {"median": float(np.median(sizes)), "max": max(sizes), "images_at_top_k": sizes.count(top_k)},
        "same_detections_as_twin": list(differences),  # otherwise ParityError was raised
        "max_box_difference_px": differences,
        "latency_ms": latency,
        "ap": ap,
    }


def _twin(settings: NmsSettings) -> Form:
    keywords = asdict(settings)
    return lambda boxes, scores, labels: cluster_diou_nms(boxes, scores, labels, **keywords)


def _torch_form(settings: NmsSettings) -> Form:
    keywords = asdict(settings)

    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels)
        return tuple(one.numpy() for one in cluster_diou_nms_torch(*tensors, **keywords))

    return form


def _onnx_function(settings: NmsSettings, *, threads: int) -> Form:
    session = open_session(nms_model(settings=settings), threads=threads)

    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        feed = dict(zip(INPUTS, (boxes[None], scores[None], labels[None]), strict=True))
        number, *found = session.run(list(OUTPUTS), feed)
        return tuple(one[0, : number[0, 0]] for one in found)

    return form


def _plain(settings: NmsSettings) -> Form:
    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        keep = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), PLAIN_IOU)
        kept = keep[: settings.max_detections].numpy()
        return boxes[kept], scores[kept], labels[kept]

    return form


def _timed(form: Form, arrays: list[NDArray[Any]]) -> tuple[float, Any]:
    """Milliseconds and result of the second of two runs; an image without candidates takes no time."""
    if not len(arrays[1]):
        return 0.0, tuple(arrays)
    form(*arrays)
    start = time.perf_counter()
    found = form(*arrays)
    return (time.perf_counter() - start) * 1e3, found


def _distribution(values: list[float]) -> dict[str, float]:
    median, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return {"median": median, "p90": p90, "p99": p99, "n": len(values)}
