"""Times of the NMS kernels on a GPU, beside torchvision's class-wise NMS and the published matrix form, in one run.

    python -m tests.gpu.bench_nms -o docs/results/gpu_nms.json

Every time is that of a whole batch, between two events of the stream. Ours is the replay of a CUDA graph of ten calls,
a tenth of it; the others, which wait for the GPU in between, are called as they are, after one another in each round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ld_export.published_nms import published_nms
from ld_runtime.cuda_kernels import CudaKernels, DeviceDetections, load_kernels
from ld_runtime.errors import BackendMissingError
from ld_runtime.files import write_text
from ld_runtime.gpu_state import GpuWatch
from ld_runtime.model_card import NmsSettings
from tests.runtime.native_cases import crowd

if TYPE_CHECKING:
    from collections.abc import Callable

SETTINGS = NmsSettings(score_threshold=0.0, max_detections=100)
CANDIDATES = (1000, 2000, 5000)
BATCHES = (1, 8, 32)
CLASSES = 80
GRAPH_CALLS = 10
# Of a pair of boxes: read a label from shared memory, compare, and count on.
INSTRUCTIONS_PER_PAIR = 10
LANES_PER_SM = 128


class Case:
    """One batch on the device."""

    def __init__(self, kernels: CudaKernels, *, batch: int, candidates: int) -> None:
        scenes = [crowd(seed, candidates, classes=CLASSES) for seed in range(batch)]
        arrays = [np.stack(kind) for kind in zip(*scenes, strict=True)]
        self.boxes, self.scores, self.labels = (torch.from_numpy(one).cuda() for one in arrays)
        self._kernels = kernels
        self._batch, self._candidates = batch, candidates
        shape = (batch, SETTINGS.max_detections)
        self.outputs = (
            torch.empty(batch, dtype=torch.int32, device="cuda"),
            torch.empty((*shape, 4), device="cuda"),
            torch.empty(shape, device="cuda"),
            torch.empty(shape, dtype=torch.int64, device="cuda"),
        )
        size = kernels.nms_workspace(batch=batch, candidates=candidates)
        self.workspace = torch.empty(size, dtype=torch.uint8, device="cuda")

    def ours(self) -> None:
        self._kernels.enqueue_nms(
            boxes=self.boxes.data_ptr(),
            scores=self.scores.data_ptr(),
            labels=self.labels.data_ptr(),
            batch=self._batch,
            candidates=self._candidates,
            settings=SETTINGS,
            detections=DeviceDetections(*(one.data_ptr() for one in self.outputs)),
            workspace=self.workspace.data_ptr(),
            stream=torch.cuda.current_stream().cuda_stream,
        )

    def torchvision(self) -> None:
        """Classes and images apart by the offsets of its own batched_nms; no votes, no distance."""
        from torchvision.ops import batched_nms

        group = self.labels + CLASSES * torch.arange(self._batch, device="cuda")[:, None]
        batched_nms(self.boxes.flatten(0, 1), self.scores.flatten(), group.flatten(), SETTINGS.iou_threshold)

    def published(self) -> None:
        for one in zip(self.boxes, self.scores, self.labels, strict=True):
            published_nms(*one, settings=SETTINGS)

    def as_graph(self) -> torch.cuda.CUDAGraph:
        self.ours()  # modules are loaded outside of a capture
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(GRAPH_CALLS):
                self.ours()
        return graph

    def floor_us(self, bandwidth: float) -> dict[str, float]:
        """What the inputs, read once, and the pairs, looked at once, take at best."""
        properties = torch.cuda.get_device_properties(0)
        clock_hz = 1e6 * torch.cuda.clock_rate()
        count = sum(one.numel() * one.element_size() for one in (self.boxes, self.scores, self.labels, *self.outputs))
        pairs = self._batch * self._candidates * (self._candidates - 1) / 2
        lanes = properties.multi_processor_count * LANES_PER_SM
        return {
            "memory_us": 1e6 * count / bandwidth,
            "compute_us": 1e6 * pairs * INSTRUCTIONS_PER_PAIR / (lanes * clock_hz),
        }


def elapsed_us(action: Callable[[], object]) -> float:
    """Between two events around it."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    action()
    end.record()
    end.synchronize()
    return 1000 * float(start.elapsed_time(end))


def copy_bandwidth() -> float:
    """Bytes a second of a large copy on the device, read and written."""
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = [elapsed_us(lambda: target.copy_(source)) for _ in range(20)]
    return 2e6 * source.numel() / min(times[5:])


def measure(kernels: CudaKernels, *, batch: int, candidates: int, rounds: int, bandwidth: float) -> dict[str, Any]:
    case = Case(kernels, batch=batch, candidates=candidates)
    graph = case.as_graph()
    actions: dict[str, Callable[[], object]] = {
        "ours": graph.replay,
        "ours, call by call": case.ours,
        "torchvision batched_nms": case.torchvision,
        "published matrix form": case.published,
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for repeat in range(rounds + 2):
        for name, action in actions.items():
            spent = elapsed_us(action) / (GRAPH_CALLS if name == "ours" else 1)
            if repeat >= 2:  # warm
                times[name].append(spent)
    floor = case.floor_us(bandwidth)
    medians = {name: statistics.median(one) for name, one in times.items()}
    return {
        "candidates": candidates,
        "batch": batch,
        "n": rounds,
        "latency_us": {
            name: {"median": medians[name], "p90": float(np.quantile(one, 0.9)), "p99": float(np.quantile(one, 0.99))}
            for name, one in times.items()
        },
        "times_ours": {name: one / medians["ours"] for name, one in medians.items()},
        "floor": floor,
        "ours_to_floor": medians["ours"] / max(floor.values()),
    }


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.exit("no GPU: torch.cuda.is_available() is false; see `nvidia-smi`")
    try:
        kernels = load_kernels()
    except BackendMissingError as error:
        sys.exit(str(error))
    bandwidth = copy_bandwidth()
    watch = GpuWatch("cuda:0")
    watch.read()
    cases = []
    for candidates in CANDIDATES:
        for batch in BATCHES:
            one = measure(kernels, batch=batch, candidates=candidates, rounds=options.rounds, bandwidth=bandwidth)
            cases.append(one)
            watch.read()
            sys.stdout.write(f"K {candidates}, batch {batch}: {one['latency_us']['ours']['median']:.1f} us\n")
    report = {
        "span": "candidates on the device to detections on the device, whole batch",
        "device": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "copy_bandwidth_gb_s": bandwidth / 1e9,
        "state": str(watch.state()),
        "cases": cases,
    }
    write_text(options.output, json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
