"""How far the maps of a deployed file are from PyTorch's, by level, before any candidate is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ld_export.explain_stages import Maps

# Edges of the histograms of absolute differences: a percentile is known to 1/16 of a decade, whatever the images.
EDGES = np.concatenate([[0.0], np.logspace(-7, 4, 11 * 16 + 1)])


@dataclass(frozen=True)
class Spread:
    """Absolute differences.

    Args:
        mean: of all.
        p99: upper edge of the histogram's bin that holds it, so up to 15 % too large.
        max: of all.
    """

    mean: float
    p99: float
    max: float


@dataclass(frozen=True)
class LevelDifference:
    """One level's maps, over all images.

    Args:
        stride: of the level, in pixels.
        locations: how many were compared.
        class_logits: absolute difference.
        scores: of the sigmoid, 0-1.
        edges_px: of the four distances of a location, the expectation of its distributions times the stride; pixels of
            the canvas. Of rotated boxes: from the prior to the centre, and half of both sides.
        class_cosine: of the class logits of both sides; None where one side is all zeros.
        edge_cosine: of the edge logits.
    """

    stride: int
    locations: int
    class_logits: Spread
    scores: Spread
    edges_px: Spread
    class_cosine: float | None
    edge_cosine: float | None


class _Running:
    def __init__(self) -> None:
        self.counts = np.zeros(len(EDGES), np.int64)
        self.total, self.largest, self.n = 0.0, 0.0, 0

    def add(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        apart = np.abs(one - other).ravel()
        if not apart.size:
            return
        self.counts += np.bincount(np.searchsorted(EDGES[1:], apart, side="left"), minlength=len(EDGES))[: len(EDGES)]
        self.total += float(apart.sum())
        self.largest = max(self.largest, float(apart.max()))
        self.n += apart.size

    def spread(self) -> Spread:
        if not self.n:
            return Spread(0.0, 0.0, 0.0)
        at = int(np.searchsorted(np.cumsum(self.counts), 0.99 * self.n))
        bound = float(EDGES[min(at + 1, len(EDGES) - 1)])
        return Spread(self.total / self.n, min(bound, self.largest), self.largest)


class _Cosine:
    def __init__(self) -> None:
        self.sums = np.zeros(3)

    def add(self, one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        self.sums += [(one * other).sum(), (one * one).sum(), (other * other).sum()]

    def value(self) -> float | None:
        both, one, other = self.sums
        return float(both / np.sqrt(one * other)) if one * other > 0 else None


class LevelDifferences:
    """Adds up the differences of maps, image by image, in constant memory.

    Args:
        strides: of the levels, in pixels.
        score_threshold: None compares all locations; else those where a class has a higher score on either side.
        distributions: of a location; a fifth one, an angle's, is no distance.
    """

    def __init__(
        self, *, strides: tuple[int, ...], score_threshold: float | None = None, distributions: int = 4
    ) -> None:
        self._strides, self._threshold, self._distributions = strides, score_threshold, distributions
        self._spreads = [[_Running() for _ in range(3)] for _ in strides]
        self._cosines = [[_Cosine() for _ in range(2)] for _ in strides]
        self._locations = [0] * len(strides)

    def add(self, reference: Maps, deployed: Maps) -> None:
        """The maps of one image, as `Stages.trunk` gives them."""
        levels = len(self._strides)
        for level, stride in enumerate(self._strides):
            classes, edges = (
                [maps[at][0].reshape(maps[at].shape[1], -1).astype(np.float64) for maps in (reference, deployed)]
                for at in (level, levels + level)
            )
            scores = [1 / (1 + np.exp(-one)) for one in classes]
            if self._threshold is not None:
                chosen = np.maximum(*scores).max(axis=0) > self._threshold
                classes, edges, scores = ([one[:, chosen] for one in kind] for kind in (classes, edges, scores))
            distances = [_expectation(one, self._distributions) * stride for one in edges]
            self._locations[level] += classes[0].shape[1]
            for running, kind in zip(self._spreads[level], (classes, scores, distances), strict=True):
                running.add(*kind)
            for cosine, kind in zip(self._cosines[level], (classes, edges), strict=True):
                cosine.add(*kind)

    def result(self) -> tuple[LevelDifference, ...]:
        """By level."""
        found = []
        for level, stride in enumerate(self._strides):
            class_logits, scores, edges_px = (one.spread() for one in self._spreads[level])
            classes, edges = (one.value() for one in self._cosines[level])
            found.append(
                LevelDifference(stride, self._locations[level], class_logits, scores, edges_px, classes, edges)
            )
        return tuple(found)


def _expectation(edge_logits: NDArray[np.float64], distributions: int) -> NDArray[np.float64]:
    """Of the first four distributions of each location: (distributions * bins, k) -> (4, k), in strides."""
    logits = edge_logits.reshape(distributions, len(edge_logits) // distributions, -1)[:4]
    parts = np.exp(logits - logits.max(axis=1, keepdims=True)) if logits.size else logits
    bins = np.arange(logits.shape[1])[:, None]
    return np.asarray((parts * bins).sum(axis=1) / parts.sum(axis=1))
