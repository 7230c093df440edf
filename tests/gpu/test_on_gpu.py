"""What only a GPU can show, and what the commands say where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from cuda.bindings import runtime as cudart

import ld_runtime
from ld_runtime import cuda_kernels
from ld_runtime.errors import BackendMissingError
from ld_runtime.model_card import NmsSettings
from tests.gpu.machines import Machine, checked, missing_gpu
from tests.runtime.native_cases import crowd

if TYPE_CHECKING:
    from ld_runtime.cuda_kernels import DeviceDetections

ROOT = Path(__file__).parents[2]
SETTINGS = NmsSettings(max_detections=50)
needs_gpu = pytest.mark.skipif(bool(missing_gpu()), reason=f"{missing_gpu()}: kernels ran in the emulation only")


@needs_gpu
def test_a_captured_graph_gives_the_same() -> None:
    machine = Machine.cuda()
    scenes = [np.stack(kind) for kind in zip(crowd(1, 900), crowd(2, 900), strict=True)]
    expected = machine.nms(*scenes, settings=SETTINGS)

    boxes, scores, labels = (machine.put(one) for one in scenes)
    outputs: DeviceDetections = machine.outputs(2, 50)
    workspace = machine.empty(machine.kernels.nms_workspace(batch=2, candidates=900))
    stream = checked(cudart.cudaStreamCreate())
    checked(cudart.cudaStreamBeginCapture(stream, cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal))
    machine.kernels.enqueue_nms(
        boxes=boxes,
        scores=scores,
        labels=labels,
        batch=2,
        candidates=900,
        settings=SETTINGS,
        detections=outputs,
        workspace=workspace,
        stream=int(stream),
    )
    graph = checked(cudart.cudaStreamEndCapture(stream))
    executable = checked(cudart.cudaGraphInstantiate(graph, 0))
    for _ in range(3):
        checked(cudart.cudaGraphLaunch(executable, stream))
    checked(cudart.cudaStreamSynchronize(stream))
    for found, wanted in zip(machine.found(outputs, 2, 50), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    machine.free_all()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.gpu.bench_nms", *arguments]
    paths = os.pathsep.join(str(ROOT / one) for one in ("", "export", "runtime"))
    env = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, env=env)


def test_benchmark_says_what_it_times() -> None:
    done = bench("--help")
    assert done.returncode == 0
    assert "published matrix form" in done.stdout


@pytest.mark.skipif(not missing_gpu(), reason="there is a GPU")
def test_benchmark_needs_a_gpu(tmp_path: Path) -> None:
    done = bench("-o", str(tmp_path / "out.json"))
    assert done.returncode == 1
    assert "no GPU" in done.stderr
    assert not (tmp_path / "out.json").exists()


def test_missing_and_foreign_libraries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cuda_kernels.load_kernels.cache_clear()
    monkeypatch.setattr(ld_runtime, "__path__", [str(tmp_path)])
    try:
        with pytest.raises(BackendMissingError, match=r"no libld_deploy_cuda.so in .*make kernels"):
            cuda_kernels.load_kernels()
        (tmp_path / "lib").mkdir()
        (tmp_path / "lib" / "libld_deploy_cuda.so").write_bytes(b"no library")
        with pytest.raises(BackendMissingError, match=r"cannot be loaded .*make kernels"):
            cuda_kernels.load_kernels()
    finally:
        cuda_kernels.load_kernels.cache_clear()
