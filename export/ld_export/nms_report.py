"""AP and time of every form of the NMS, of the published one and of plain NMS, on stored candidates of a detector."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ld_export.nms_forms import FORMS, PLAIN, PLAIN_IOU, PUBLISHED, TWIN, Form
from ld_export.onnx_check import compare_voted
from ld_runtime.bench_report import machine, sha256_of
from ld_runtime.coco import evaluate_boxes
from ld_runtime.detections import Detections
from ld_runtime.errors import ConfigError, DataError
from ld_runtime.model_card import NmsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


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


@dataclass(frozen=True)
class Case:
    """Which candidates of an image go in: the best `top_k` above `score_threshold`."""

    top_k: int = 1000
    score_threshold: float = 0.05

    @classmethod
    def parse(cls, text: str) -> Case:
        """Reads `1000` or `3000:0.02`.

        Raises:
            ConfigError: It is neither.
        """
        top_k, colon, threshold = text.partition(":")
        try:
            case = cls(int(top_k), float(threshold) if colon else cls.score_threshold)
        except ValueError as error:
            raise ConfigError(f"a case is TOP_K or TOP_K:SCORE_THRESHOLD, such as 3000:0.02, got {text!r}") from error
        if case.top_k < 1:
            raise ConfigError(f"a case needs 1 candidate or more, got {text!r}")
        return case


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
    cases: Sequence[Case] = (Case(),),
    settings: NmsSettings | None = None,
    threads: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Runs every form of the NMS on the same candidates, in one process.

    Args:
        candidates: see `read_candidates`.
        ground_truth: COCO document; label i is its category of the i-th smallest id.
        cases: which candidates go in.
        settings: of the NMS; the score threshold is the case's.
        threads: of torch and of ONNX Runtime; the other forms have one in any case.
        progress: gets one line before each case.

    Returns:
        The JSON's content: per case, AP and time of each, largest differences from the numpy twin, and how many times
        the median time of each the published form takes.

    Raises:
        DataError: A file cannot be used.
        ParityError: The forms do not give the same detections.
        BackendMissingError: The native library was not built.
    """
    settings = settings or NmsSettings()
    images = read_candidates(candidates)
    try:
        truth = json.loads(ground_truth.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the ground truth {ground_truth}: {error}; it must be a COCO JSON") from error
    reports = []
    torch_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for case in cases:
            progress(f"{len(images)} images, the best {case.top_k} candidates above {case.score_threshold:g} each")
            of_case = replace(settings, score_threshold=case.score_threshold)
            reports.append(_report(images, truth, top_k=case.top_k, settings=of_case, threads=threads))
    finally:
        torch.set_num_threads(torch_threads)
    return {
        "candidates_sha256": sha256_of(candidates),
        "ground_truth_sha256": sha256_of(ground_truth),
        "images": len(images),
        "settings": {name: value for name, value in asdict(settings).items() if name != "score_threshold"},
        "plain_nms_iou_threshold": PLAIN_IOU,
        "threads": threads,
        "time_is": "of the NMS alone, per image, arrays in host memory, second of two runs; one form after the other",
        "cases": reports,
        "machine": machine(),
    }


def _report(
    images: list[Candidates], truth: dict[str, Any], *, top_k: int, settings: NmsSettings, threads: int
) -> dict[str, Any]:
    inputs = [image.best(top_k=top_k, score_threshold=settings.score_threshold) for image in images]
    category_ids = sorted(category["id"] for category in truth["categories"])
    latency: dict[str, dict[str, float]] = {}
    ap: dict[str, dict[str, float | None]] = {}
    differences: dict[str, float] = {}
    expected: list[Any] = []
    others = 0
    # One form after the other: the idle threads of one library spin, and would slow the next one down.
    for name, make in FORMS.items():
        form = make(settings, threads)
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
        elif name == PUBLISHED:
            others = sum(not _same(one, found) for one, (_, found) in zip(expected, timed, strict=True))
        elif name != PLAIN:
            pairs = zip(expected, timed, strict=True)
            differences[name] = max(compare_voted(one, found) for one, (_, found) in pairs)
    sizes = [len(arrays[1]) for arrays in inputs]
    return {
        "top_k": top_k,
        "score_threshold": settings.score_threshold,
        "candidates": {"median": float(np.median(sizes)), "max": max(sizes), "images_at_top_k": sizes.count(top_k)},
        "same_detections_as_twin": list(differences),  # otherwise ParityError was raised
        "max_box_difference_px": differences,
        "images_where_published_differs": others,  # in scores or labels: its class offset costs float32 precision
        "latency_ms": latency,
        "published_takes_times": {
            name: latency[PUBLISHED]["median"] / one["median"] for name, one in latency.items() if one["median"]
        },
        "ap": ap,
    }


def _timed(form: Form, arrays: list[NDArray[Any]]) -> tuple[float, Any]:
    """Milliseconds and result of the second of two runs; an image without candidates takes no time."""
    if not len(arrays[1]):
        return 0.0, tuple(arrays)
    form(*arrays)
    start = time.perf_counter()
    found = form(*arrays)
    return (time.perf_counter() - start) * 1e3, found


def _same(expected: Any, found: Any) -> bool:
    """Whether two results have the same scores and labels."""
    return all(np.array_equal(one, other) for one, other in zip(expected[1:], found[1:], strict=True))


def _distribution(values: list[float]) -> dict[str, float]:
    median, p90, p99 = (float(value) for value in np.percentile(values, (50, 90, 99)))
    return {"median": median, "p90": p90, "p99": p99, "n": len(values)}
