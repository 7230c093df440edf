"""How far the maps of one network are from those of another, in pixels and in score, where there is something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_export.quantize_calibration import canvas_of, open_session
from ld_runtime.errors import DataError
from ld_runtime.gfl_candidates import decode_rotated
from ld_runtime.onnx_file import INPUT
from ld_runtime.rotated_boxes import differences

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    from ld_runtime.model_card import ModelCard

CLASS_MAP, EDGE_MAP = "class_logits_", "edge_logits_"


@dataclass(frozen=True)
class MapError:
    """Mean absolute differences over the locations whose best score is above the threshold in either network.

    Args:
        edge_px: of a side's distance, the mean of its distribution, in pixels of the canvas. Of a rotated box: of its
            centre's x and y, half its sides, and how far its turn moves the end of the longer half side.
        score: of a class score, from 0 to 1.
    """

    edge_px: float
    score: float


class FloatReference:
    """The maps of a float network on some images, to compare others with.

    Args:
        trunk: the float network.
        paths: image files.
        card: of the file.
        threads: CPU threads; None takes every core.

    Raises:
        InputError: An image cannot be read or does not fit the network.
        DataError: There is no image.
    """

    def __init__(
        self, trunk: ModelProto, *, paths: Sequence[Path], card: ModelCard, threads: int | None = None
    ) -> None:
        if not paths:
            raise DataError("there is no image to compare the networks on")
        self.threshold, self.rotated = card.nms.score_threshold, card.is_rotated
        self.threads = threads
        self.names = [one.name for one in trunk.graph.output]
        self.canvases = [canvas_of(path, card=card) for path in paths]
        self._maps = self._run(trunk)

    def error(self, model: ModelProto) -> MapError:
        """Of another network with the same maps."""
        edge = score = 0.0
        locations = 0
        for canvas, wanted, got in zip(self.canvases, self._maps, self._run(model), strict=True):
            for name in self.names:
                if not name.startswith(CLASS_MAP):
                    continue
                level = name.removeprefix(CLASS_MAP)
                scores, others = (_scores(maps[name]) for maps in (wanted, got))
                some = np.maximum(scores.max(axis=0), others.max(axis=0)) > self.threshold
                # By the finest level: the coarsest ones' sizes are rounded up.
                stride = canvas.shape[2] / wanted[f"{CLASS_MAP}0"].shape[3] * 2 ** int(level)
                edges = [maps[f"{EDGE_MAP}{level}"][0] for maps in (wanted, got)]
                apart = _turned_apart(*edges) if self.rotated else np.abs(_distances(edges[0]) - _distances(edges[1]))
                locations += int(some.sum())
                score += float(np.abs(scores - others)[:, some].mean(axis=0).sum())
                edge += float(apart[:, some].mean(axis=0).sum()) * stride
        return MapError(edge_px=edge / max(locations, 1), score=score / max(locations, 1))

    def _run(self, model: ModelProto) -> list[dict[str, NDArray[Any]]]:
        session = open_session(model, threads=self.threads)
        return [
            dict(zip(self.names, session.run(self.names, {INPUT: canvas}), strict=True)) for canvas in self.canvases
        ]


def _scores(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(classes, locations) of logits (1, classes, h, w)."""
    values = logits[0].reshape(logits.shape[1], -1).astype(np.float64)
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))))


def _distances(edge_logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """(4, locations) in strides, of edge logits (4 * bins, h, w)."""
    values = edge_logits.reshape(4, len(edge_logits) // 4, -1).astype(np.float64)
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    bins = np.arange(values.shape[1])[None, :, None]
    return np.asarray((weights * bins).sum(axis=1) / weights.sum(axis=1))


def _turned_apart(edge_logits: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """(5, locations) in strides, of edge logits (5 * bins, h, w): see `MapError.edge_px`."""
    origin = np.zeros(edge_logits[0].size, np.float32)
    boxes, turned = (
        decode_rotated(one.reshape(5, len(one) // 5, -1), origin, origin, 1) for one in (edge_logits, others)
    )
    apart = np.abs(differences(boxes, turned))
    apart[:, 2:4] /= 2
    apart[:, 4] *= boxes[:, 2:4].max(axis=1) / 2
    return apart.T
