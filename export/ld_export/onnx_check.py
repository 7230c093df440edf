"""Does the exported graph compute what PyTorch computes? Asked on images that the exporter has not seen."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import onnxruntime
import torch
from onnx import ModelProto, helper

from ld_export.deployed_file import INPUT
from ld_export.gfl_function import map_names, tail_model
from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.errors import ParityError
from ld_runtime.gfl_candidates import gfl_candidates, rotated_gfl_candidates
from ld_runtime.model_card import SIDES
from ld_runtime.rotated_boxes import differences
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from ld_runtime.model_card import ModelCard

# Float32 convolutions of two libraries differ in the order of sums; of what follows them, in the last bits.
MAP_RTOL = 1e-4
BOX_ATOL_PX = 2e-3
SCORE_ATOL = 1e-6
VOTED_ATOL_PX = 2e-3
# Of rotated boxes: a direction is the less sure, the shorter the mean that it is read off; float32 overlaps are votes.
ANGLE_ATOL = 1e-3
ROTATED_VOTED_ATOL_PX = 2e-2


def open_session(model: ModelProto, *, threads: int = 0) -> onnxruntime.InferenceSession:
    """ONNX Runtime on the CPU, from memory; 0 threads takes every core."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def check_images(card: ModelCard) -> list[NDArray[np.uint8]]:
    """Batches with structure at several scales: another batch size, other values and, where free, another shape."""
    divisor = card.preprocess.size_divisor
    fixed = card.preprocess.input_hw
    shapes = [(1, *fixed), (3, *fixed)] if fixed else [(1, 192, 352), (3, 320, 160)]
    rng = np.random.default_rng(20)
    batches = []
    for count, height, width in shapes:
        height, width = -(-height // divisor) * divisor, -(-width // divisor) * divisor  # noqa: PLW2901
        canvas = np.zeros((count, height, width, 3), np.float32)
        for grain in (4, 16, 64):
            coarse = rng.uniform(-60, 60, (count, -(-height // grain), -(-width // grain), 3)).astype(np.float32)
            canvas += np.stack([cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in coarse])
        batches.append(np.clip(canvas + 120, 0, 255).astype(np.uint8))
    return batches


def check_maps(trunk: ModelProto, *, network: nn.Module, card: ModelCard) -> None:
    """Compares a graph of the maps with the network that it was traced from.

    Raises:
        ParityError: They differ.
    """
    session = open_session(trunk)
    for images in check_images(card):
        with torch.no_grad():
            expected = [one.numpy() for one in network(torch.from_numpy(images))]
        compare_maps(expected, session.run(None, {INPUT: images}))


def compare_maps(expected: list[NDArray[Any]], got: list[NDArray[Any]]) -> None:
    """Raises `ParityError` where two lists of maps differ by more than `MAP_RTOL` of the largest value."""
    for level, (one, other) in enumerate(zip(expected, got, strict=True)):
        worst = float(np.abs(one - other).max()) / max(1.0, float(np.abs(one).max()))
        if one.shape != other.shape or not worst <= MAP_RTOL:
            raise ParityError(f"map {level} of the exported graph differs from PyTorch's by {worst:.1e}, relative")


def check_tail(model: ModelProto, *, card: ModelCard, strides: Sequence[int]) -> None:
    """Compares the finished file with the numpy forms of decode and NMS, on the maps that it has itself.

    They come from the same run: what a runtime fuses depends on the whole graph, and in a quantized network a last bit
    can become a step, and a step many.

    Raises:
        ParityError: They differ.
    """
    levels = len(strides)
    watched = ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in map_names(levels))
    session = open_session(watched)
    runs = [(images, session.run(None, {INPUT: images})) for images in check_images(card)]
    classes, bins = runs[0][1][-2 * levels].shape[1], runs[0][1][-1].shape[1] // SIDES[card.box_format]
    without_nms = replace(card, nms_kind="none")
    decode = open_session(tail_model(card=without_nms, strides=strides, classes=classes, bins=bins))
    for images, found in runs:
        outputs, maps = found[: -2 * levels], found[-2 * levels :]
        candidates = decode.run(None, dict(zip(map_names(levels), maps, strict=True)))
        for index in range(len(images)):
            of_image = [one[index] for one in maps]
            settings: dict[str, Any] = {"strides": strides, "rule": card.candidates}
            settings["score_threshold"] = 0.0  # of a location that is not there
            if card.is_rotated:
                expected = rotated_gfl_candidates(of_image[:levels], of_image[levels:], **settings)
            else:
                settings["canvas_hw"] = images.shape[1:3]
                expected = gfl_candidates(of_image[:levels], of_image[levels:], **settings)
            boxes, scores, labels = (one[index] for one in candidates)
            there = slice(len(expected[1]))
            compare_candidates(expected, (boxes[there], scores[there], labels[there]))
            got = tuple(one[index] for one in outputs)
            if card.nms_kind == "none":
                compare_candidates((boxes, scores, labels), got)
                continue
            kept = slice(int(got[0][0]))
            voted = (
                rotated_cluster_nms(boxes, scores, labels, settings=card.nms)
                if isinstance(card.nms, RotatedNmsSettings)
                else cluster_diou_nms(boxes, scores, labels, **asdict(card.nms))
            )
            compare_voted(voted, (got[1][kept], got[2][kept], got[3][kept]))


def compare_candidates(expected: tuple[NDArray[Any], ...], got: tuple[NDArray[Any], ...]) -> None:
    """Every candidate of one image has a partner of its class, box and score on the other side.

    Candidates at the cut are left out: rounding decides which of them are in. Neither is their order compared, which
    among equal scores is nobody's.

    Args:
        expected: boxes (K, 4 or 5), scores (K,), labels (K,).
        got: the same of another form.

    Raises:
        ParityError: One has none, or there is nothing above the cut to compare.
    """
    shapes = [[one.shape for one in side] for side in (expected, got)]
    if shapes[0] != shapes[1]:
        raise ParityError(f"this form of the decode gives {shapes[1]}, the numpy form {shapes[0]}")
    lowest = [float(side[1].min(initial=1)) for side in (expected, got)]
    cut = max(lowest) + 2 * SCORE_ATOL * min(1.0, float(expected[1].max(initial=0)))
    for (boxes, scores, labels), (others, other_scores, other_labels) in ((expected, got), (got, expected)):
        above = scores > cut
        if not above.any():
            message = f"all {len(scores)} candidates of the check image have the same score, {float(lowest[0]):.4f}"
            raise ParityError(f"{message}: nothing can be compared; is the checkpoint trained?")
        same = labels[above, None] == other_labels
        same &= np.abs(scores[above, None] - other_scores) <= SCORE_ATOL
        same &= _near(boxes[above, None], others, atol_px=BOX_ATOL_PX)
        missing = int((~same.any(axis=1)).sum())
        if missing:
            message = f"{missing} of {int(above.sum())} candidates differ from the numpy form"
            raise ParityError(f"{message} by more than {BOX_ATOL_PX} px or {SCORE_ATOL} in score: nothing was written")


def compare_voted(expected: tuple[NDArray[Any], ...], got: tuple[NDArray[Any], ...]) -> float:
    """Compares two NMS results of one image: boxes (m, 4 or 5), scores (m,), labels (m,).

    Args:
        expected: of the numpy twin.
        got: of another form.

    Returns:
        The largest difference of a coordinate in pixels; of rotated boxes, of a centre or side.

    Raises:
        ParityError: Number, order, labels or scores differ, or a box by more than `VOTED_ATOL_PX`; a rotated one by
            more than `ROTATED_VOTED_ATOL_PX` or `ANGLE_ATOL`.
    """
    (boxes, scores, labels), (other_boxes, other_scores, other_labels) = expected, got
    if not (np.array_equal(scores, other_scores) and np.array_equal(labels, other_labels)):
        message = f"this form of the NMS gives {len(other_scores)} detections, the numpy form {len(scores)}"
        raise ParityError(f"{message}; their number, order, scores or labels differ")
    rotated = boxes.shape[1] == SIDES["cxcywha"]
    allowed = ROTATED_VOTED_ATOL_PX if rotated else VOTED_ATOL_PX
    apart = np.abs(differences(boxes, other_boxes)) if rotated else np.abs(boxes - other_boxes)
    worst = float(apart[:, :4].max(initial=0))
    if not _near(boxes, other_boxes, atol_px=allowed).all():
        raise ParityError(f"voted boxes differ by {worst:.1e} px from the numpy form, allowed are {allowed} px")
    return worst


def _near(boxes: NDArray[Any], others: NDArray[Any], *, atol_px: float) -> NDArray[np.bool_]:
    """Which boxes (..., 4) are the same; or (..., 5), however they are written."""
    if boxes.shape[-1] != SIDES["cxcywha"]:
        return np.asarray(np.abs(boxes - others).max(axis=-1) <= atol_px)
    apart = np.abs(differences(boxes, others))
    return np.asarray((apart[..., :4].max(axis=-1) <= atol_px) & (apart[..., 4] <= ANGLE_ATOL))
