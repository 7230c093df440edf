"""Score-voting Cluster-DIoU-NMS: in C++ where that was built, and in numpy, the readable twin of every form.

Source of the algorithm: Zheng et al., "Enhancing Geometric Factors in Model Learning and Inference for Object Detection
and Instance Segmentation", arXiv 2005.03572 (Cluster-NMS, DIoU); score voting after Kim and Lee, "Probabilistic Anchor
Assignment with IoU Prediction for Object Detection", arXiv 2007.08103. Classes are compared as integers: the published
code shifts boxes by 4000 px per class instead, which costs float32 precision and mixes classes on large images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ld_runtime.errors import ConfigError, InputError
from ld_runtime.model_card import NmsSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

Float32 = np.float32
Backend = Literal["native", "numpy"]
Detected = tuple["NDArray[np.float32]", "NDArray[np.float32]", "NDArray[np.int64]"]


@np.errstate(over="ignore", invalid="ignore", divide="ignore")  # D with an infinite box is NaN
def distance_iou(boxes: NDArray[np.float32], *, distance_exponent: float = 0.8) -> NDArray[np.float32]:
    """D(i, j) = IoU - (rho^2 / (c^2 + 1e-7)) ** distance_exponent of all pairs.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels, x2 > x1 and y2 > y1.
        distance_exponent: the paper's beta. The power is taken in float64 and rounded to float32.

    Returns:
        float32 (n, n): rho is the distance of the centres, c the diagonal of the enclosing box.
    """
    x1, y1, x2, y2 = boxes.T.astype(Float32)
    area = (x2 - x1) * (y2 - y1)
    inner_w = np.maximum(np.minimum(x2[:, None], x2) - np.maximum(x1[:, None], x1), Float32(0))
    inner_h = np.maximum(np.minimum(y2[:, None], y2) - np.maximum(y1[:, None], y1), Float32(0))
    inner = inner_w * inner_h
    iou = inner / (area[:, None] + area - inner)

    outer_w = np.maximum(x2[:, None], x2) - np.minimum(x1[:, None], x1)
    outer_h = np.maximum(y2[:, None], y2) - np.minimum(y1[:, None], y1)
    diagonal = outer_w * outer_w + outer_h * outer_h + Float32(1e-7)
    shift_x = (x1 + x2)[:, None] - (x1 + x2)
    shift_y = (y1 + y2)[:, None] - (y1 + y2)
    distance = (shift_x * shift_x + shift_y * shift_y) * Float32(0.25) / diagonal
    penalty = np.power(distance.astype(np.float64), distance_exponent).astype(Float32)
    return np.asarray(iou - penalty, dtype=Float32)


def keep_fixed_point(suppresses: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Who is kept when j falls to any *kept* better i: the unique fixed point, equal to greedy NMS.

    Args:
        suppresses: bool (n, n), strictly upper triangular: [i, j] says that i, if kept, removes j.

    Returns:
        bool (n,).
    """
    keep: NDArray[np.bool_] = np.ones(len(suppresses), dtype=bool)
    for _ in range(len(suppresses) + 1):  # each pass settles at least one more box in order
        settled = np.logical_not((suppresses & keep[:, None]).any(axis=0))
        if np.array_equal(settled, keep):
            break
        keep = settled
    return keep


def cluster_diou_nms(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    *,
    iou_threshold: float = 0.6,
    distance_exponent: float = 0.8,
    vote_threshold: float = 0.7,
    vote_sigma: float = 0.025,
    score_threshold: float = 0.05,
    max_detections: int = 100,
    backend: Backend | None = None,
) -> Detected:
    """Score-voting Cluster-DIoU-NMS of one image.

    A candidate is in when its score is above `score_threshold` and its box has a positive width and height; others
    neither suppress nor vote, wherever they stand. Order: score descending, lower index first on ties. A box is
    suppressed by a kept better one of its class with D > `iou_threshold`. Each kept box is then the mean of the boxes
    of its class that are not better and have D > `vote_threshold`, itself and suppressed ones included, weighted by
    exp(-(1 - D)^2 / vote_sigma) * score. Scores are not changed and boxes not clipped.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of any one frame.
        scores: float32 (n,).
        labels: int64 (n,).
        iou_threshold: compared with D, not with the IoU.
        distance_exponent: see `distance_iou`.
        vote_threshold: compared with D.
        vote_sigma: width of the Gaussian.
        score_threshold: strict.
        max_detections: the best so many are returned.
        backend: `native` or `numpy`, the twin. None: native where it was built (`ld-deploy doctor` says so), else
            numpy. They keep the same boxes; voted coordinates agree to about 1e-4 px.

    Returns:
        boxes float32 (m, 4), scores float32 (m,) descending, labels int64 (m,).

    Raises:
        InputError: The shapes do not fit together, or `max_detections` is negative.
        BackendMissingError: `native` was asked for and not built.
        ConfigError: There is no such backend.
    """
    boxes = np.asarray(boxes, dtype=Float32)
    scores = np.asarray(scores, dtype=Float32)
    labels = np.asarray(labels, dtype=np.int64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != (len(boxes),) or labels.shape != (len(boxes),):
        message = f"need boxes (n, 4), scores (n,) and labels (n,), got {boxes.shape}, {scores.shape}, {labels.shape}"
        raise InputError(message)
    if max_detections < 0:
        raise InputError(f"max_detections must be 0 or more, got {max_detections}")

    settings = NmsSettings(
        iou_threshold=iou_threshold,
        distance_exponent=distance_exponent,
        vote_threshold=vote_threshold,
        vote_sigma=vote_sigma,
        score_threshold=score_threshold,
        max_detections=max_detections,
    )
    if backend not in (None, "native", "numpy"):
        raise ConfigError(f"backend must be native, numpy or None, got {backend!r}")
    if backend != "numpy":
        from ld_runtime import native

        if backend == "native" or native.is_available():
            return native.cluster_diou_nms(
                np.ascontiguousarray(boxes),
                np.ascontiguousarray(scores),
                np.ascontiguousarray(labels),
                settings=settings,
            )
    return cluster_diou_nms_numpy(boxes, scores, labels, settings=settings)


@np.errstate(over="ignore", invalid="ignore")
def cluster_diou_nms_numpy(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], labels: NDArray[np.int64], *, settings: NmsSettings
) -> Detected:
    """The twin: see `cluster_diou_nms`. All pairs in matrices, which is readable and slow."""
    valid = (scores > Float32(settings.score_threshold)) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    order = np.flatnonzero(valid)
    order = order[np.argsort(-scores[order], kind="stable")]
    boxes, scores, labels = boxes[order], scores[order], labels[order]

    # D of boxes of different classes is never looked at.
    d = distance_iou(boxes, distance_exponent=settings.distance_exponent)
    same_class = labels[:, None] == labels
    suppresses = np.triu(same_class & (d > Float32(settings.iou_threshold)), k=1)
    kept = np.flatnonzero(keep_fixed_point(suppresses))[: settings.max_detections]

    voted = np.empty((len(kept), 4), Float32)
    for row, i in enumerate(kept):
        # The box itself, with D = 1, and those that are not better.
        after = i + 1 + np.flatnonzero(same_class[i, i + 1 :] & (d[i, i + 1 :] > Float32(settings.vote_threshold)))
        voters = np.append(i, after)
        away = np.append(Float32(0), Float32(1) - d[i, after])
        weights = np.exp(-(away * away) / Float32(settings.vote_sigma)) * scores[voters]
        voted[row] = (weights[:, None] * boxes[voters]).sum(axis=0) / weights.sum()
    return voted, scores[kept], labels[kept]
