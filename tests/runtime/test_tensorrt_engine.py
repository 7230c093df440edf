"""Engines on a GPU in host memory: what is called, in which order, and that all of it is freed. See also `make gpu`."""

from __future__ import annotations

import errno
import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ld_runtime import tensorrt_engine
from ld_runtime.cuda_device import CudaDevice
from ld_runtime.engine_file import EngineRecord, PluginUse
from ld_runtime.engines import DeviceTimed
from ld_runtime.errors import BackendMissingError, EngineError
from ld_runtime.precision_proof import PrecisionProof, TypeShares
from ld_runtime.tensorrt_engine import TensorRtEngine
from tests.runtime import fake_tensorrt
from tests.runtime.fake_cuda import FakeRuntime, Status
from tests.runtime.fake_engine import images
from tests.runtime.fake_tensorrt import FakeTensorRt


def test_the_command_that_builds_it_again(record: EngineRecord) -> None:
    engine = Path("folder/student.engine")
    start = "`ld-deploy build student.onnx -o student.engine --backend tensorrt --precision fp16"
    sizes = "--batch 1 1 2 --min-hw 32 32 --opt-hw 64 96 --max-hw 96 96`"
    assert record.rebuild_command(engine) == f"{start} --plugin --serialize-plugin {sizes}"
    rtx = replace(record, backend="tensorrt-rtx", nms="function", plugin=None)
    assert rtx.rebuild_command(engine) == f"{start} {sizes}".replace("tensorrt ", "tensorrt-rtx ")
    fixed = replace(record.card, preprocess=replace(record.card.preprocess, resize="letterbox", input_hw=(64, 96)))
    other = replace(record, card=fixed, nms="function", plugin=None, tf32=True)
    assert other.rebuild_command(engine) == f"{start} --no-plugin --tf32 --batch 1 1 2`"


def test_a_batch_goes_through(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    assert (engine.facts.precision, engine.facts.nms, engine.facts.device) == ("fp16", "plugin", "cuda:0")
    for _ in range(3):  # plain, then as a graph
        output = engine.run(images((10, 20, 128), (30, 40, 64)))
        assert output.num_detections.tolist() == [1, 1]
        assert output.num_detections.dtype == np.int32
        assert output.boxes.shape == (2, 3, 4)
        assert output.boxes[:, 0].tolist() == [[0, 0, 10, 20], [0, 0, 30, 40]]
        assert output.scores[:, 0].tolist() == [0.5, 0.25]
        assert output.labels.tolist() == [[2, -1, -1]] * 2
        assert output.labels.dtype == np.int64
    first = engine.run(images((1, 2, 3)))
    engine.run(images((9, 9, 9)))
    assert first.boxes[0, 0].tolist() == [0, 0, 1, 2]  # a result is not overwritten by the next run


def test_a_graph_is_recorded_after_the_first_run_and_replayed(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any
) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    gpu.log.clear()
    engine.run(images((1, 2, 3)))
    assert "GraphLaunch" not in gpu.log
    assert gpu.log.index("StreamBeginCapture") > max(i for i, one in enumerate(gpu.log) if one == "StreamSynchronize")
    assert engine.details()["cuda_graph"] == "replayed"
    gpu.log.clear()
    engine.run(images((1, 2, 3)))
    assert gpu.log == [
        *("SetDevice", "EventRecord", "MemcpyAsync", "EventRecord", "StreamWaitEvent"),
        *("EventRecord", "GraphLaunch", "EventRecord", "StreamWaitEvent", "MemcpyAsync", "EventRecord"),
        *["StreamSynchronize"] * 3,
    ]
    assert library.contexts == 1
    engine.run(images((1, 2, 3), hw=(32, 32)))
    assert library.contexts == 2
    engine.run(images((1, 2, 3)))
    assert library.contexts == 2


def test_times_by_the_gpus_events(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    assert isinstance(engine, DeviceTimed)
    with pytest.raises(EngineError, match="has not run yet"):
        engine.device_spans()
    for _ in range(2):
        engine.run(images((1, 2, 3), (4, 5, 6)))
        # One copy an image there, 5 for the network, one copy back: 1 ms each in the fake.
        assert engine.device_spans() == {"network": 5.0, "device": 8.0}
    assert engine.details()["gpu"] == "Fake GPU"
    assert engine.details()["first_inference_ms"] > 0  # type: ignore[operator]


def test_everything_is_freed(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    path = engine_file()
    with TensorRtEngine(path, cuda=CudaDevice(runtime=gpu)) as engine:
        engine.run(images((1, 2, 3)))
        engine.run(images((1, 2, 3), hw=(32, 32)))
        assert gpu.everything > 10
    assert gpu.everything == 0
    engine.close()
    with pytest.raises(EngineError, match="was closed"):
        engine.run(images((1, 2, 3)))
    forgotten = TensorRtEngine(path, cuda=CudaDevice(runtime=gpu))
    forgotten.run(images((1, 2, 3)))
    del forgotten
    assert gpu.everything == 0


FAILURES = ["cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags", "cudaEventCreate"]


@pytest.mark.parametrize("function", FAILURES)
def test_a_failure_when_it_is_opened_frees_the_rest(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, function: str
) -> None:
    cuda = CudaDevice(runtime=gpu)
    gpu.fail[function] = Status.cudaErrorMemoryAllocation
    with pytest.raises(EngineError, match=rf"{function} failed on cuda:0: cudaErrorMemoryAllocation.*smaller batches"):
        TensorRtEngine(engine_file(), cuda=cuda)
    assert gpu.everything == 0


@pytest.mark.parametrize("function", ["cudaMemcpyAsync", "cudaEventRecord", "cudaStreamWaitEvent", "cudaGraphLaunch"])
def test_a_failure_in_a_run_waits_for_the_streams(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, function: str
) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    engine.run(images((1, 2, 3)))
    gpu.fail[function] = Status.cudaErrorNoDevice
    with pytest.raises(EngineError, match=rf"student\.engine: {function} failed on cuda:0: cudaErrorNoDevice"):
        engine.run(images((1, 2, 3)))
    assert gpu.log[-3:] == ["StreamSynchronize"] * 3
    del gpu.fail[function]
    assert engine.run(images((1, 2, 3))).num_detections.tolist() == [1]


@pytest.mark.parametrize("function", ["cudaStreamEndCapture", "cudaGraphInstantiate", ""])
def test_what_cannot_be_recorded_runs_without_and_says_so(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    library.refuses_capture = not function
    if function:
        gpu.fail[function] = Status.cudaErrorStreamCaptureUnsupported
    before = gpu.handles.copy()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert engine.run(images((1, 2, 3))).scores[0, 0] == 3 / 256
            for stream in gpu.streams.values():
                stream.captured = None  # what the failing function would have done
    (message,) = caplog.messages
    assert message.startswith("images of shape (1, 64, 96, 3) run without a CUDA graph:")
    assert engine.details()["cuda_graph"] == "none"
    assert gpu.handles == before


def test_a_loop_is_not_recorded(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        engine = TensorRtEngine(engine_file(nms="function", plugin=None), cuda=CudaDevice(runtime=gpu))
    assert "ld-deploy build student.onnx -o student.engine --backend tensorrt --precision fp16 --plugin" in caplog.text
    engine.run(images((1, 2, 3)))
    assert "StreamBeginCapture" not in gpu.log
    assert engine.facts.nms == "graph"


def test_only_so_many_shapes_are_kept(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt_engine, "MOST_SHAPES", 2)
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    engine.run(images((1, 2, 3)))
    engine.run(images((1, 2, 3), hw=(32, 32)))
    alive = gpu.everything
    engine.run(images((1, 2, 3), hw=(64, 64)))
    assert gpu.everything == alive


def test_rtx_keeps_what_it_compiled(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = engine_file(backend="tensorrt-rtx", nms="function", plugin=None, compute_capabilities=None)
    cache = path.with_name("student.engine.cache")
    engine = TensorRtEngine(path, cuda=CudaDevice(runtime=gpu))
    assert library.config.cuda_graph_strategy == "whole"
    assert not cache.exists()
    engine.run(images((1, 2, 3)))
    assert cache.read_bytes() == b"compiled"
    assert "StreamBeginCapture" not in gpu.log
    assert engine.details()["cuda_graph"] == "by the library"
    library.cache.content = b"compiled more"
    engine.close()
    assert cache.read_bytes() == b"compiled more"
    assert gpu.everything == 0
    with caplog.at_level(logging.INFO):
        TensorRtEngine(path, cuda=CudaDevice(runtime=gpu)).run(images((1, 2, 3)))
    assert "of another GPU, driver or version: it is written anew" in caplog.text
    assert cache.read_bytes() == b"compiled"


def test_a_cache_that_cannot_be_written_is_said(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = engine_file(backend="tensorrt-rtx", nms="function", plugin=None, compute_capabilities=None)
    path.with_name("student.engine.cache").mkdir()
    engine = TensorRtEngine(path, cuda=CudaDevice(runtime=gpu))
    with caplog.at_level(logging.WARNING):
        engine.run(images((1, 2, 3)))
    assert "the next start compiles again: cannot write" in caplog.text


def test_a_cache_that_cannot_be_read_is_said(
    gpu: FakeRuntime,
    library: FakeTensorRt,
    engine_file: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = engine_file(backend="tensorrt-rtx", nms="function", plugin=None, compute_capabilities=None)
    path.with_name("student.engine.cache").write_bytes(b"compiled")
    read = Path.read_bytes

    def refused(self: Path) -> bytes:
        if self.suffix == ".cache":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with caplog.at_level(logging.WARNING):
        TensorRtEngine(path, cuda=CudaDevice(runtime=gpu)).run(images((1, 2, 3)))
    assert "this start compiles again: cannot read" in caplog.text


def test_the_plugin_is_loaded_before_the_engine(
    gpu: FakeRuntime,
    library: FakeTensorRt,
    engine_file: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = engine_file(plugin=PluginUse(op="GFLDetect", sha256="ab", serialized=False))
    tmp_path = path.parent
    monkeypatch.setattr("ld_runtime.__path__", [str(tmp_path)])
    with pytest.raises(BackendMissingError, match=r"plugin for tensorrt 11 was not built.*make plugin"):
        TensorRtEngine(path, cuda=CudaDevice(runtime=gpu))
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libld_deploy_plugin_trt11.so").touch()
    TensorRtEngine(path, cuda=CudaDevice(runtime=gpu))
    assert library.loads == [str(tmp_path / "lib" / "libld_deploy_plugin_trt11.so")]
    assert "libld_deploy_plugin_trt11.so is another build than the one that" in caplog.text
    caplog.clear()
    same = PluginUse(op="GFLDetect", sha256=hashlib.sha256(b"").hexdigest(), serialized=False)
    TensorRtEngine(engine_file(plugin=same), cuda=CudaDevice(runtime=gpu))
    assert not caplog.text
    assert len(library.loads) == 1
    assert not library.runtime.engine_host_code_allowed
    TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))  # the plugin is inside it
    assert library.runtime.engine_host_code_allowed
    assert len(library.loads) == 1


def test_the_precision_of_an_engine(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    proved = PrecisionProof(engine=TypeShares.of(layers=["int8"], tensors=["int8"]))
    assert TensorRtEngine(engine_file(precision_proof=proved), cuda=CudaDevice(runtime=gpu)).precision_proof() == proved
    found = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu)).precision_proof()
    assert found.engine == TypeShares.of(layers=["fp16"], tensors=["fp16"])
    assert found.graph is not None


def test_the_json_comes_back_as_it_was(record: EngineRecord, tmp_path: Path) -> None:
    for one in (record, replace(record, plugin=None, compute_capabilities=None, precision_proof=PrecisionProof())):
        assert EngineRecord.from_json(one.to_json()) == one


def test_outputs_that_are_larger_than_the_card_says(
    gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TensorRtEngine(engine_file(), cuda=CudaDevice(runtime=gpu))
    monkeypatch.setattr(fake_tensorrt, "MOST", 300)
    with pytest.raises(EngineError, match="outputs of fixed size are needed"):
        engine.run(images((1, 2, 3)))


def test_a_cache_that_has_nothing_new_is_left_alone(gpu: FakeRuntime, library: FakeTensorRt, engine_file: Any) -> None:
    path = engine_file(backend="tensorrt-rtx", nms="function", plugin=None, compute_capabilities=None)
    cache = path.with_name("student.engine.cache")
    cache.write_bytes(b"compiled")
    before = cache.stat().st_ino
    with TensorRtEngine(path, cuda=CudaDevice(runtime=gpu)) as engine:
        engine.run(images((1, 2, 3)))
    assert cache.stat().st_ino == before  # writing renames a new file over it
