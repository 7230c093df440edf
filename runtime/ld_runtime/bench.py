"""Latency and rate of detectors, with the spans named, on real images.

Spans, each on one image, single stream, in ms:
    preprocess: decoded image -> canvas
    engine: canvas in host memory -> outputs in host memory
    end_to_end: file -> detections in pixels of the original image

and, by the GPU's own events, of runners that can tell them:
    network: the network with its NMS alone, as the replay of its graph
    device: the canvas's way to the device, network, and the outputs' way back

Every runner is warmed up until it settles, then all take turns, so that a noisy machine hurts all alike. Nothing is
left out of the figures. A runner's stages return when their result is in host memory: the clock is here, not in them.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ld_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

SPANS = ("preprocess", "engine", "network", "device", "end_to_end")
ROUNDS = 10
QUANTILES = (*range(0, 100, 5), 99, 100)  # in percent: what a report draws a distribution from
# Settled: the median of the last so many runs is within this share of the median of as many before.
SETTLED_WINDOW, SETTLED_SHARE = 10, 0.03


@runtime_checkable
class StagedRunner(Protocol):
    """A detector whose stages can be timed apart: spans `preprocess`, `engine` and `end_to_end`.

    A stage hands its result to the next; nobody else looks into it.
    """

    name: str
    settings: Mapping[str, str | int | float]

    def decode(self, path: Path) -> Any:
        """Reads an image file."""

    def preprocess(self, image: Any) -> Any:
        """From the decoded image to the canvas in host memory: uint8 or float, as this runner's engine takes it."""

    def canvas_hw(self, prepared: Any) -> tuple[int, int]:
        """Height and width of a canvas in pixels: only those of one size go into a batch together."""

    def engine(self, prepared: Sequence[Any]) -> Any:
        """From a batch of canvases in host memory to outputs in host memory: returns when they are there."""

    def finish(self, outputs: Any, prepared: Sequence[Any]) -> int:
        """From outputs to detections in pixels of the originals; returns how many those are, over the batch."""


@runtime_checkable
class DeviceTimedRunner(Protocol):
    """A staged runner that can also tell the device's own times."""

    def device_spans(self) -> Mapping[str, float]:
        """`network` and `device` of its last engine stage in ms; nothing where they are not known."""


@runtime_checkable
class WholeRunner(Protocol):
    """A detector that can only be timed as a whole: span `end_to_end`."""

    name: str
    settings: Mapping[str, str | int | float]

    def detect(self, path: Path) -> int:
        """From an image file to detections in pixels of the original, in host memory; returns how many those are."""


Runner = StagedRunner | WholeRunner


@dataclass(frozen=True)
class Latency:
    """Distribution of one span, in ms, over all `n` runs; `quantiles_ms` by percent, as `QUANTILES`."""

    median_ms: float
    p90_ms: float
    p99_ms: float
    mean_ms: float
    n: int
    quantiles_ms: Mapping[int, float] = field(default_factory=dict)

    @classmethod
    def of(cls, samples_ms: Sequence[float]) -> Latency:
        """Percentiles with linear interpolation."""
        median, p90, p99 = np.percentile(samples_ms, (50, 90, 99))
        quantiles = dict(zip(QUANTILES, np.percentile(samples_ms, QUANTILES).tolist(), strict=True))
        return cls(float(median), float(p90), float(p99), statistics.fmean(samples_ms), len(samples_ms), quantiles)


@dataclass(frozen=True)
class Measurement:
    """What was measured of one runner.

    Args:
        name: of the runner.
        settings: of the runner.
        spans: latency by span.
        fps: images a second, file to detections, one at a time.
        images_per_second: of the engine span alone, by batch size; empty for a runner that is timed as a whole.
        mean_detections: an image.
        warm_up_runs: images before the clock started.
        settled: whether the warm-up ended because the times had settled, not because its own time was up.
    """

    name: str
    settings: Mapping[str, str | int | float]
    spans: Mapping[str, Latency]
    fps: float
    images_per_second: Mapping[int, float]
    mean_detections: float
    warm_up_runs: int
    settled: bool


@dataclass
class _Samples:
    """What a runner has gathered so far."""

    runner: Runner
    images: Iterator[Path]
    spans: dict[str, list[float]] = field(default_factory=dict)
    detections: list[int] = field(default_factory=list)

    def run_once(self) -> float:
        """Times the next image; returns its end-to-end time in ms."""
        path = next(self.images)
        times, count = _timed(self.runner, path)
        self.detections.append(count)
        for span, value in times.items():
            self.spans.setdefault(span, []).append(value)
        return times["end_to_end"]


def measure(
    runners: Sequence[Runner],
    images: Sequence[Path],
    *,
    seconds: float = 5.0,
    batch_sizes: Sequence[int] = (1,),
    progress: Callable[[str], None] = lambda _: None,
    after_round: Callable[[], None] = lambda: None,
) -> list[Measurement]:
    """Measures detectors side by side.

    Args:
        runners: what to measure.
        images: real image files, taken in turn.
        seconds: of each runner for the spans, and again for each batch size.
        batch_sizes: for `images_per_second`.
        progress: is told what happens.
        after_round: called after the warm-up, and after each round of the spans.

    Raises:
        InputError: There is no runner or image, or an image cannot be read.
    """
    if not runners or not images:
        raise InputError(f"a benchmark needs runners and images, got {len(runners)} and {len(images)}")
    warm_ups = []
    for runner in runners:
        progress(f"warming up {runner.name}")
        warm_ups.append(warm_up(_Samples(runner, cycle(images)).run_once, limit_s=max(1.0, seconds)))

    after_round()
    samples = [_Samples(runner, cycle(images)) for runner in runners]
    for turn in range(ROUNDS):
        progress(f"spans, round {turn + 1} of {ROUNDS}")
        for sample in samples:
            _repeat(sample.run_once, seconds / ROUNDS)
        after_round()

    rates: list[dict[int, float]] = [{} for _ in runners]
    staged = [(runner, rate) for runner, rate in zip(runners, rates, strict=True) if isinstance(runner, StagedRunner)]
    for batch_size in batch_sizes:
        progress(f"engine, batches of {batch_size}")
        for (_, rate), value in zip(
            staged, engine_rates([one for one, _ in staged], images, batch_size, seconds), strict=True
        ):
            rate[batch_size] = value

    return [
        Measurement(
            name=sample.runner.name,
            settings=sample.runner.settings,
            spans={span: Latency.of(sample.spans[span]) for span in SPANS if span in sample.spans},
            fps=1000 / statistics.fmean(sample.spans["end_to_end"]),
            images_per_second=rate,
            mean_detections=statistics.fmean(sample.detections),
            warm_up_runs=runs,
            settled=settled,
        )
        for sample, rate, (runs, settled) in zip(samples, rates, warm_ups, strict=True)
    ]


def warm_up(run_once: Callable[[], float], *, limit_s: float) -> tuple[int, bool]:
    """Runs until the times settle or the limit is reached.

    Args:
        run_once: returns its time in ms.
        limit_s: of the whole warm-up.

    Returns:
        How often it ran, and whether the times had settled.
    """
    times: list[float] = []
    end = perf_counter() + limit_s
    while True:
        times.append(run_once())
        if len(times) >= 2 * SETTLED_WINDOW:
            before = statistics.median(times[-2 * SETTLED_WINDOW : -SETTLED_WINDOW])
            now = statistics.median(times[-SETTLED_WINDOW:])
            if abs(now - before) <= SETTLED_SHARE * before:
                return len(times), True
        if perf_counter() >= end:
            return len(times), False


def engine_rates(
    runners: Sequence[StagedRunner], images: Sequence[Path], batch_size: int, seconds: float
) -> list[float]:
    """Images a second of the engine span, with canvases that are ready in host memory.

    Canvases of the most frequent size are taken, over and over when a batch needs more than there are.
    """
    steps = []
    for runner in runners:
        by_hw: dict[tuple[int, int], list[Any]] = {}
        for path in images[: 4 * batch_size]:
            prepared = runner.preprocess(runner.decode(path))
            by_hw.setdefault(runner.canvas_hw(prepared), []).append(prepared)
        most_frequent = max(by_hw.values(), key=len)
        batches = cycle(most_frequent)

        def step(runner: StagedRunner = runner, batches: Iterator[Any] = batches) -> float:
            batch = list(islice(batches, batch_size))
            start = perf_counter()
            runner.engine(batch)
            return (perf_counter() - start) * 1000

        steps.append(step)
    for step in steps:
        step()  # memory of this batch size is allocated here
        step()
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(ROUNDS):
        for step, gathered in zip(steps, times, strict=True):
            gathered.extend(_repeat(step, seconds / ROUNDS))
    return [1000 * batch_size * len(gathered) / sum(gathered) for gathered in times]


def _repeat(step: Callable[[], float], seconds: float) -> list[float]:
    """Runs at least once, and until the time is up."""
    end = perf_counter() + seconds
    values = [step()]
    while perf_counter() < end:
        values.append(step())
    return values


def _timed(runner: Runner, path: Path) -> tuple[dict[str, float], int]:
    """Times of the spans that the runner has, in ms, and the number of detections."""
    start = perf_counter()
    if not isinstance(runner, StagedRunner):
        count = runner.detect(path)
        return {"end_to_end": (perf_counter() - start) * 1000}, count
    image = runner.decode(path)
    decoded = perf_counter()
    prepared = runner.preprocess(image)
    ready = perf_counter()
    outputs = runner.engine([prepared])
    done = perf_counter()
    count = runner.finish(outputs, [prepared])
    end = perf_counter()
    spans = {"preprocess": ready - decoded, "engine": done - ready, "end_to_end": end - start}
    own = runner.device_spans() if isinstance(runner, DeviceTimedRunner) else {}
    return {**{span: value * 1000 for span, value in spans.items()}, **own}, count
