"""The engine: what it returns, and every file and device that it refuses."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from ld_runtime.engines import open_engine
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, InputError, ModelCardError
from ld_runtime.onnx_file import SIGNED_ZERO_POINT
from ld_runtime.onnxruntime_engine import OnnxRuntimeEngine


def test_outputs_by_hand(model_file, rectangles, card) -> None:
    engine = open_engine(model_file())
    assert engine.card == card
    batch = np.stack(
        [
            rectangles((64, 96), blue=(10, 20, 30, 50), red=(0, 0, 96, 64), value=240),
            rectangles((64, 96)),
        ]
    )
    output = engine.run(batch)
    np.testing.assert_array_equal(output.num_detections, [2, 0])
    np.testing.assert_array_equal(output.boxes[0, :2], [[10, 20, 30, 50], [0, 0, 96, 64]])
    np.testing.assert_array_equal(output.scores, np.array([[0.9375, 0.9375, 0], [0, 0, 0]], np.float32))
    np.testing.assert_array_equal(output.labels, [[0, 2, -1], [-1, -1, -1]])
    assert (output.num_detections.dtype, output.boxes.dtype) == (np.int32, np.float32)
    assert (output.scores.dtype, output.labels.dtype) == (np.float32, np.int64)


def test_threads_change_nothing(model_file, rectangles) -> None:
    path = model_file()
    image = rectangles((64, 96), green=(1, 2, 3, 4))[None]
    engine = OnnxRuntimeEngine(path, threads=1)
    assert engine._session.get_session_options().intra_op_num_threads == 1
    np.testing.assert_array_equal(engine.run(image).boxes, OnnxRuntimeEngine(path).run(image).boxes)
    with pytest.raises(ConfigError, match="threads must be 1 or more"):
        OnnxRuntimeEngine(path, threads=0)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((64, 96, 3), np.uint8),
        np.zeros((1, 64, 96, 4), np.uint8),
        np.zeros((1, 64, 96, 3), np.float32),
        np.zeros((0, 64, 96, 3), np.uint8),
    ],
)
def test_wrong_arrays_are_refused(model_file, images) -> None:
    with pytest.raises(InputError, match=r"need canvases uint8 \(N, H, W, 3\)"):
        open_engine(model_file()).run(images)


def test_a_fixed_size_refuses_another(model_file, rectangles) -> None:
    engine = open_engine(model_file(hw=(64, 96)))
    assert engine.run(rectangles((64, 96))[None]).num_detections.tolist() == [0]
    with pytest.raises(EngineError, match=r"could not run on \(1, 96, 64, 3\); its input is \['N', 64, 96, 3\]"):
        engine.run(rectangles((96, 64))[None])


def test_files_that_are_not_there_or_not_ours(tmp_path: Path, model_file) -> None:
    with pytest.raises(EngineError, match=r"there is no such file; make it with `ld-deploy export .* -o gone.onnx`"):
        open_engine(tmp_path / "gone.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(EngineError, match="it is a folder"):
        open_engine(tmp_path / "folder.onnx")
    for name in ("model.pth", "model"):
        with pytest.raises(EngineError, match=r"\.onnx and \.engine files are known.*`ld-deploy export"):
            open_engine(tmp_path / name)
    with pytest.raises(EngineError, match=r"no such file; make it with `ld-deploy build model.onnx -o model.engine`"):
        open_engine(tmp_path / "model.engine")
    with pytest.raises(ModelCardError, match=r"carries no model card .*Make it with `ld-deploy export"):
        open_engine(model_file(card_text=""))
    with pytest.raises(ModelCardError, match="cannot be read"):
        open_engine(model_file(card_text="{not json"))
    with pytest.raises(ModelCardError, match="schema version 99"):
        open_engine(model_file(schema_version=99))


def test_damaged_files(tmp_path: Path, model_file) -> None:
    whole = model_file().read_bytes()
    for name, data in (("empty", b""), ("text", b"not an ONNX file"), ("half", whole[: len(whole) // 2])):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(data)
        with pytest.raises(EngineError, match=r"is damaged or no ONNX file.*copy it again"):
            open_engine(path)


def test_a_card_on_another_graph(tmp_path: Path, model_file) -> None:
    model = onnx.load(model_file())
    for output in list(model.graph.output):
        if output.name == "labels":
            model.graph.output.remove(output)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(EngineError, match=r"has inputs .* and outputs \['boxes', 'num_detections', 'scores'\]"):
        open_engine(tmp_path / "other.onnx")


def test_devices(model_file) -> None:
    path = model_file()
    for device in ("gpu", "cuda:", "cuda:x", "", "CPU"):
        with pytest.raises(ConfigError, match="device must be cpu, cuda or cuda:N"):
            open_engine(path, device=device)


def test_a_provider_that_is_not_installed_is_an_error(model_file, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BackendMissingError, match=r"CUDAExecutionProvider.*pip install 'ld-deploy\[onnxruntime-gpu\]'"):
        open_engine(model_file(), device="cuda:1")


def test_a_silent_fallback_is_an_error(model_file, monkeypatch: pytest.MonkeyPatch) -> None:
    """Onnxruntime lists CUDA, cannot load its libraries, says so in its log and runs on the CPU."""

    class Fallen:
        def __init__(self, _content, _settings, *, providers, enable_fallback, disabled_optimizers) -> None:
            assert providers == [("CUDAExecutionProvider", {"device_id": "1"})]
            assert disabled_optimizers == []
            assert enable_fallback == 0

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", Fallen)
    with pytest.raises(BackendMissingError, match="would run on CPUExecutionProvider: check `nvidia-smi`"):
        open_engine(model_file(), device="cuda:1")


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cpu", "int8", (TensorProto.UINT8, [])),
        ("cpu", "fp8", (TensorProto.UINT8, ["ReluQuantRewrite"])),
        ("cuda", "int8", (TensorProto.INT8, [])),
    ],
)
def test_quantized_files(model_file, monkeypatch: pytest.MonkeyPatch, device, precision, expected) -> None:
    """CPU kernels are fast with uint8 only; CUDA gets the file as it is."""
    path = model_file(precision=precision)
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), SIGNED_ZERO_POINT))
    onnx.save(model, path)
    opened = []

    def session(content, _settings, *, providers, enable_fallback, disabled_optimizers):
        opened.append((onnx.load_from_string(content).graph.initializer[-1].data_type, disabled_optimizers))
        raise RuntimeError("seen")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [f"{device.upper()}ExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(EngineError, match="seen"):
        open_engine(path, device=device)
    assert opened == [expected]


def test_without_onnxruntime(model_file, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from ld_runtime import Detector\n"
        "from ld_runtime.errors import BackendMissingError\n"
        "try:\n    Detector(sys.argv[1])\n"
        "except BackendMissingError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(model_file())], check=True, capture_output=True, text=True
    )
    assert "onnxruntime is not installed: pip install 'ld-deploy[onnxruntime]'" in done.stdout


def test_a_path_with_any_letters(model_file, tmp_path: Path, rectangles) -> None:
    path = tmp_path / "mödel 模型.onnx"
    shutil.copy(model_file(), path)
    assert open_engine(path).run(rectangles((32, 32))[None]).num_detections.tolist() == [0]
