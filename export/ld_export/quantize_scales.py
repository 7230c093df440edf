"""From what was seen of a tensor to the largest value that its encoding holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from ld_runtime.errors import ConfigError, DataError
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

BINS = 4096
# Thresholds of the two searches: every so many bins.
SEARCH_STEP = 32

Method = Literal["max", "percentile_99.9", "percentile_99.99", "percentile_99.999", "entropy", "mse"]
METHODS: tuple[Method, ...] = get_args(Method)


def parse_methods(names: Sequence[str]) -> tuple[Method, ...]:
    """Methods by their names.

    Raises:
        ConfigError: There is no such method.
    """
    if unknown := [name for name in names if name not in METHODS]:
        message = f"no method of calibration is called {', '.join(unknown)}{nearest(unknown[0], METHODS) or ';'}"
        raise ConfigError(f"{message} there are {', '.join(METHODS)}")
    return tuple(one for one in METHODS if one in names)


@dataclass(eq=False)
class Histogram:
    """Magnitudes of the values of a tensor, counted as they come.

    Args:
        counts: int64 (BINS,), of equal bins from 0 to `top`.
        top: upper end; it doubles when a larger value comes, and pairs of bins become one.
        peak: the largest magnitude.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    top: float = 0.0
    peak: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Counts the values of a tensor of any shape.

        Raises:
            DataError: One of them is not finite.
        """
        magnitudes = np.abs(values).ravel()
        peak = float(magnitudes.max(initial=0.0))
        if not np.isfinite(peak):
            raise DataError("a value of the network is not finite on this image: look at the image and the weights")
        self.peak = max(self.peak, peak)
        if self.top == 0.0:
            if peak == 0.0:
                self.counts[0] += magnitudes.size
                return
            self.top = peak
        while peak > self.top:
            self.top *= 2
            halved = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([halved, np.zeros(BINS - len(halved), np.int64)])
        bins = np.minimum((magnitudes * (BINS / self.top)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(bins, minlength=BINS)

    def merge(self, other: Histogram) -> Histogram:
        """Both together. The coarser one's bins are kept; the finer one's are counted by their middle."""
        wide, narrow = (self, other) if self.top >= other.top else (other, self)
        result = Histogram(wide.counts.copy(), wide.top, max(self.peak, other.peak))
        if narrow.top == 0.0:
            result.counts[0] += narrow.counts.sum()
            return result
        middles = (np.arange(BINS) + 0.5) * (narrow.top / BINS)
        bins = np.minimum((middles * (BINS / wide.top)).astype(np.int64), BINS - 1)
        np.add.at(result.counts, bins, narrow.counts)
        return result


def largest_value(histogram: Histogram, *, method: Method, levels: int) -> float:
    """What the largest code stands for; a tensor of zeros gets 1.

    Args:
        histogram: of magnitudes.
        method: `max`: the largest seen. `percentile_P`: P % of the magnitudes are not larger. `entropy`: the least
            Kullback-Leibler divergence between the clipped distribution and its quantized form (Migacz, "8-bit
            inference with TensorRT", GTC 2017). `mse`: the least mean squared error.
        levels: positive codes of the encoding, such as 127.
    """
    if histogram.peak == 0.0:
        return 1.0
    if method == "max":
        return histogram.peak
    if method.startswith("percentile_"):
        return _percentile(histogram, float(method.removeprefix("percentile_")))
    search: Callable[[Histogram, int], float] = _least_divergence if method == "entropy" else _least_error
    return min(search(histogram, levels), histogram.peak)


def _percentile(histogram: Histogram, percent: float) -> float:
    """The upper end of the first bin up to which so many of the magnitudes lie."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    index = int(np.searchsorted(share, percent / 100))
    return min((index + 1) * histogram.top / BINS, histogram.peak)


def _least_error(histogram: Histogram, levels: int) -> float:
    width = histogram.top / BINS
    middles = (np.arange(BINS) + 0.5) * width
    used = histogram.counts > 0
    counts, middles = histogram.counts[used], middles[used]
    thresholds = np.arange(SEARCH_STEP, BINS + 1, SEARCH_STEP) * width
    errors = []
    for threshold in thresholds:
        step = threshold / levels
        codes = np.minimum(np.rint(middles / step), levels)
        errors.append(float((counts * (middles - codes * step) ** 2).sum()))
    return float(thresholds[int(np.argmin(errors))])


def _least_divergence(histogram: Histogram, levels: int) -> float:
    """The threshold of the least divergence. Zeros are left out: a ReLU makes half of all values zeros."""
    counts = histogram.counts.astype(np.float64)
    counts[0] = 0.0
    if counts.sum() == 0:
        return histogram.peak
    codes = levels + 1
    best, best_bins = np.inf, BINS
    for bins in range(codes, BINS + 1, SEARCH_STEP):
        clipped = counts[:bins].copy()
        clipped[-1] += counts[bins:].sum()
        starts = np.arange(codes) * bins // codes
        sums = np.add.reduceat(counts[:bins], starts)
        filled = np.add.reduceat((clipped > 0).astype(np.float64), starts)
        sizes = np.diff(np.append(starts, bins))
        level = np.divide(sums, filled, out=np.zeros(codes), where=filled > 0)
        quantized = np.where(clipped > 0, np.repeat(level, sizes), 0.0)
        divergence = _divergence(clipped, quantized)
        if divergence < best:
            best, best_bins = divergence, bins
    return best_bins * histogram.top / BINS


def _divergence(wanted: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    """KL(wanted | got) of two histograms; where only `got` is empty it is smoothed by a ten-thousandth."""
    if got.sum() == 0:
        return float("inf")
    p, q = wanted / wanted.sum(), got / got.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-4 * p[some]))).sum())
