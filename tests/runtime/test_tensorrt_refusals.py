"""Engines that are refused, and what is said of them."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ld_runtime.cuda_device import CudaDevice, device_index
from ld_runtime.detector import Detector
from ld_runtime.engine_file import record_path
from ld_runtime.engines import open_engine
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, InputError, ModelCardError
from ld_runtime.tensorrt_engine import TensorRtEngine
from tests.runtime.fake_cuda import FakeRuntime, Status
from tests.runtime.fake_engine import images
from tests.runtime.fake_tensorrt import FakeTensorRt


def test_bad_arrays_and_sizes(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    with pytest.raises(InputError, match="need canvases uint8"):
        engine.run(images((1, 2, 3)).astype(np.float32))  # type: ignore[arg-type]
    for wrong in (images((1, 2, 3), hw=(128, 96)), images(*[(1, 2, 3)] * 3), images((1, 2, 3), hw=(32, 16))):
        with pytest.raises(EngineError, match=r"was built for images \(1, 32, 32, 3\) to \(2, 96, 96, 3\), got"):
            engine.run(wrong)
    assert engine.run(images((1, 2, 3), (1, 2, 3), hw=(96, 96))).num_detections.tolist() == [1, 1]  # the largest
    assert engine.run(images((1, 2, 3), hw=(32, 32))).num_detections.tolist() == [1]  # the smallest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"backend_version": "10.15.1.29"},
            r"built with tensorrt 10.15.1.29, here is 11.4.0.106; .*ld-deploy build",
        ),
        ({"compute_capabilities": ("8.6",)}, r"built for compute capability 8.6 \(Fake GPU\), the GPU here has 8.9"),
        (
            {"engine_sha256": "0"},
            r"not the engine that student.engine.json was written for.*ld-deploy build",
        ),
    ],
)
def test_engines_of_another_place(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        TensorRtEngine(engine_file(**fields), cuda=CudaDevice(runtime=gpu))
    assert gpu.everything == 0


def test_an_engine_that_the_library_refuses(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    other = b"another engine"
    path = engine_file(other, engine_sha256=hashlib.sha256(other).hexdigest())
    with pytest.raises(EngineError, match=r"student.engine: tensorrt 11.4.0.106 cannot open it.*ld-deploy build"):
        TensorRtEngine(path, cuda=CudaDevice(runtime=gpu))


def test_an_engine_of_another_contract(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    library.types["labels"] = "INT32"
    with pytest.raises(EngineError, match=r"the contract, it has .*'labels': 'INT32'"):
        TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))


def test_missing_files(tmp_path: Path, engine_file: Any) -> None:
    with pytest.raises(EngineError, match=r"no such file; make it with `ld-deploy build nowhere.onnx -o"):
        open_engine(tmp_path / "nowhere.engine")
    path = engine_file()
    record_path(path).unlink()
    with pytest.raises(EngineError, match=r"has no student.engine.json beside it.*ld-deploy build"):
        open_engine(path)
    for text, message in (
        ("{", "JSONDecodeError"),
        ("{}", "schema version None"),
        ('{"schema_version": 1}', "KeyError"),
    ):
        record_path(path).write_text(text, encoding="utf-8")
        with pytest.raises(EngineError, match=rf"student.engine.json: .*{message}.*ld-deploy build"):
            open_engine(path)


def test_a_damaged_card(engine_file: Any) -> None:
    path = engine_file()
    text = record_path(path).read_text(encoding="utf-8")
    record_path(path).write_text(text.replace('"class_names"', '"names"'), encoding="utf-8")
    with pytest.raises(ModelCardError, match="model card cannot be read"):
        open_engine(path)


def test_settings_that_an_engine_does_not_take(engine_file: Any, library: FakeTensorRt) -> None:
    path = engine_file()
    with pytest.raises(ConfigError, match="an engine has precision and NMS in it"):
        open_engine(path, nms="native")
    with pytest.raises(ConfigError, match="was built with tensorrt, and tensorrt-rtx was asked for"):
        open_engine(path, backend="tensorrt-rtx")
    with pytest.raises(EngineError, match=r"no engine runs student.engine with backend openvino"):
        open_engine(path, backend="openvino")
    with pytest.raises(ConfigError, match="device must be cuda or cuda:N"):
        open_engine(path, device="npu")


def test_missing_libraries(engine_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = engine_file()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendMissingError, match="tensorrt is not installed: pip install tensorrt"):
        Detector(path)
    old = FakeTensorRt(FakeRuntime(), version="10.12.0.36")
    monkeypatch.setitem(sys.modules, "tensorrt", old)  # type: ignore[arg-type]
    with pytest.raises(BackendMissingError, match=r"10.12.0.36 is too old, 10.13 or later.*'tensorrt>=10.13'"):
        Detector(path)


def test_no_gpu(library: FakeTensorRt, engine_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for runtime in (FakeRuntime(fail={"cudaGetDeviceCount": Status.cudaErrorNoDevice}), FakeRuntime(devices=0)):
        with pytest.raises(BackendMissingError, match=r"CUDA finds no GPU here.*nvidia-smi"):
            CudaDevice(runtime=runtime)
    with pytest.raises(BackendMissingError, match=r"cuda:2 was asked for, there are 2 GPUs"):
        CudaDevice(2, runtime=FakeRuntime(devices=2))
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(BackendMissingError, match=r"cuda-bindings is not installed: pip install 'ld-deploy\[gpu\]'"):
        open_engine(engine_file())


@pytest.mark.parametrize(("device", "index"), [("cpu", 0), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_devices(device: str, index: int) -> None:
    assert device_index(device) == index


def test_the_oldest_library(engine_file: Any, gpu: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRt(gpu, version="10.13.0.35"))  # type: ignore[arg-type]
    engine = TensorRtEngine(engine_file(backend_version="10.13.0.35"), cuda=CudaDevice(runtime=gpu))
    gpu.log.clear()
    engine.close()
    assert gpu.log[0] == "SetDevice"  # of the thread that closes it, before anything is freed
