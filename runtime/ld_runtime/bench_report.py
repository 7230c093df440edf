"""What a benchmark says about the machine it ran on, as JSON and as a table."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import EngineError
from ld_runtime.precision_proof import shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from ld_runtime.bench import Measurement
    from ld_runtime.engines import ModelSpec, NmsPlace
    from ld_runtime.gpu_state import GpuState
    from ld_runtime.precision_proof import PrecisionProof

_VERSIONS = (
    "ld-deploy",
    "numpy",
    "opencv-python-headless",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "cuda-bindings",
    "torch",
    "mmdet",
)
# A child measures itself: in this process the peak would be that of everything that was benchmarked.
_PEAK_PROGRAM = """
import sys
from ld_runtime import Detector
path, device, backend, precision, nms, image = sys.argv[1:]
Detector(path, device=device, backend=backend or None, precision=precision or None, nms=nms or None)(image)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@dataclass(frozen=True)
class Ceiling:
    """What bounds a network on this processor.

    Args:
        operations: multiplications and additions of one forward pass, each counted as one.
        canvas_hw: for this canvas, height and width in pixels.
        operations_per_second: of one large matrix product, by precision.
    """

    operations: int
    canvas_hw: tuple[int, int]
    operations_per_second: Mapping[str, float]

    def floor_ms(self, precision: str) -> float | None:
        """Time of the network at the rate of the matrix product; None for a precision that was not measured."""
        rate = self.operations_per_second.get(precision)
        return None if rate is None else self.operations / rate * 1e3


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, GPUs, system and versions."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_name(),
        "cores": cores,
        "gpus": _gpus(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: found for name in _VERSIONS if (found := _version(name))},
    }


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_sha256(paths: Sequence[Path]) -> str:
    """One hash for a list of files: of their contents, in this order, whatever they are called."""
    return hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()


def peak_rss_mb(spec: ModelSpec, *, device: str, nms: NmsPlace | None, image: Path) -> float | None:
    """Peak resident memory of a fresh process that loads the model and runs one image, in MB (10^6 bytes).

    Returns:
        None where the system does not tell a process its own peak: it does on Linux.
    """
    if platform.system() != "Linux":
        return None
    what = (str(spec.path), device, spec.backend or "", spec.precision or "", nms or "", str(image))
    arguments = [sys.executable, "-c", _PEAK_PROGRAM, *what]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise EngineError(f"the process that measures the memory of {spec} ended with {done.returncode}: {said[-1]}")
    return int(done.stdout) * 1024 / 1e6


def to_json_content(
    measurements: Sequence[Measurement],
    *,
    images: Sequence[Path],
    settings: Mapping[str, Any],
    ceiling: Ceiling | None = None,
    proofs: Mapping[str, PrecisionProof] | None = None,
    gpu_state: GpuState | None = None,
) -> dict[str, Any]:
    """The JSON file's content. Ratios are of medians of `end_to_end` and `engine`, each over the first runner's."""
    content = {
        "schema_version": 1,
        "machine": machine(),
        "images": {"count": len(images), "sha256": list_sha256(images)},
        "settings": dict(settings),
        "measurements": [asdict(one) for one in measurements],
        "ratios": [
            {"name": one.name, "of": measurements[0].name, **_ratios(one, measurements[0])} for one in measurements[1:]
        ],
    }
    if proofs:
        content["precision_proofs"] = {name: asdict(proof) for name, proof in proofs.items()}
    if gpu_state is not None:
        content["stable"] = gpu_state.stable
        content["gpu_state"] = asdict(gpu_state)
    if ceiling is not None:
        content["ceiling"] = {**asdict(ceiling), "runners": _against_ceiling(measurements, ceiling)}
    return content


def _against_ceiling(measurements: Sequence[Measurement], ceiling: Ceiling) -> list[dict[str, Any]]:
    """The engine span of each runner of a known precision beside the floor; other canvases are in the span too."""
    found = []
    for one in measurements:
        precision = str(one.settings.get("precision", ""))
        floor = ceiling.floor_ms(precision)
        if floor is not None and "engine" in one.spans:
            engine = one.spans["engine"].median_ms
            found.append(
                {
                    "name": one.name,
                    "precision": precision,
                    "engine_ms": engine,
                    "floor_ms": floor,
                    "share_of_ceiling": floor / engine,
                }
            )
    return found


def latency_table(measurements: Sequence[Measurement], *, gpu_state: GpuState | None = None) -> Table:
    """Each span of each runner, its median over the first runner's, and whether the GPU's clocks held."""
    from rich.markup import escape
    from rich.table import Table

    found = Table(title="latency, one image at a time", caption=None if gpu_state is None else escape(str(gpu_state)))
    found.add_column("runner", overflow="fold")
    found.add_column("span")
    for heading in ("median ms", "p90", "p99", "n", "ratio"):
        found.add_column(heading, justify="right")
    for one in measurements:
        for span, latency in one.spans.items():
            first = measurements[0].spans.get(span)
            found.add_row(
                one.name if one.settled else f"{one.name} (not settled)",
                span,
                f"{latency.median_ms:.2f}",
                f"{latency.p90_ms:.2f}",
                f"{latency.p99_ms:.2f}",
                str(latency.n),
                "-" if first is None else f"{latency.median_ms / first.median_ms:.2f}",
                end_section=span == "end_to_end",
            )
    return found


def rate_table(measurements: Sequence[Measurement]) -> Table:
    """Images a second: file to detections (fps), and of the engine alone by batch size."""
    from rich.table import Table

    found = Table(title="images a second")
    found.add_column("runner", overflow="fold")
    batch_sizes = sorted({size for one in measurements for size in one.images_per_second})
    for heading in ("fps (end to end)", *(f"engine, batch {size}" for size in batch_sizes), "detections an image"):
        found.add_column(heading, justify="right")
    for one in measurements:
        rates = [one.images_per_second.get(size) for size in batch_sizes]
        found.add_row(
            one.name,
            f"{one.fps:.1f}",
            *("-" if rate is None else f"{rate:.1f}" for rate in rates),
            f"{one.mean_detections:.1f}",
        )
    return found


def precision_table(proofs: Mapping[str, PrecisionProof]) -> Table:
    """Which types each file or engine really computes in."""
    from rich.markup import escape
    from rich.table import Table

    found = Table(title="share of layers and tensors in each type")
    found.add_column("runner", overflow="fold")
    for heading in ("seen in", "layers", "tensors", "remark"):
        found.add_column(heading)
    for name, proof in proofs.items():
        for where, types in (("engine", proof.engine), ("graph", proof.graph)):
            if types is not None:
                found.add_row(name, where, shares(types.layers), shares(types.tensors), escape(proof.remark))
        if proof.engine is None and proof.graph is None:
            found.add_row(name, "-", "-", "-", escape(proof.remark))
    return found


def ceiling_table(ceiling: Mapping[str, Any]) -> Table:
    """Each engine beside the time that the network would take at the rate of a matrix product."""
    from rich.table import Table

    height, width = ceiling["canvas_hw"]
    rates = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in ceiling["operations_per_second"].items())
    found = Table(
        title=f"engine against one matrix product ({rates} Gop/s), {ceiling['operations'] / 1e9:.2f} Gop at "
        f"{height} x {width}"
    )
    found.add_column("runner", overflow="fold")
    for heading in ("precision", "engine ms", "floor ms", "of the ceiling"):
        found.add_column(heading, justify="right")
    for one in ceiling["runners"]:
        found.add_row(
            one["name"],
            one["precision"],
            f"{one['engine_ms']:.2f}",
            f"{one['floor_ms']:.2f}",
            f"{one['share_of_ceiling']:.0%}",
        )
    return found


def _ratios(one: Measurement, first: Measurement) -> dict[str, float]:
    return {
        span: one.spans[span].median_ms / first.spans[span].median_ms
        for span in ("engine", "end_to_end")
        if span in one.spans and span in first.spans
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """The model name; `platform.processor` is empty or the architecture on Linux."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """Name and driver of each NVIDIA GPU; none where there is no driver."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines()
