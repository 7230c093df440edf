"""Which engine opens which file, and how the command line names that."""

from pathlib import Path
from typing import Any

import pytest

from ld_runtime.engines import ModelSpec, open_engine
from ld_runtime.errors import ConfigError, EngineError
from ld_runtime.model_card import Precision


@pytest.mark.parametrize(
    ("text", "expected", "name"),
    [
        ("a/student.onnx", ModelSpec(Path("a/student.onnx")), "student.onnx"),
        ("student.onnx@openvino", ModelSpec(Path("student.onnx"), "openvino"), "student.onnx@openvino"),
        ("s.onnx@openvino:bf16", ModelSpec(Path("s.onnx"), "openvino", "bf16"), "s.onnx@openvino:bf16"),
        ("me@home/s.engine@tensorrt", ModelSpec(Path("me@home/s.engine"), "tensorrt"), "s.engine@tensorrt"),
    ],
)
def test_a_file_and_what_runs_it(text: str, expected: ModelSpec, name: str) -> None:
    assert ModelSpec.parse(text) == expected
    assert ModelSpec.parse(text).name == name
    assert str(ModelSpec.parse(text)) == text


def test_a_file_that_is_there_is_taken_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "student@cafe.onnx"
    with pytest.raises(ConfigError, match=r"no backend is called 'cafe\.onnx'.*onnxruntime, openvino, tensorrt"):
        ModelSpec.parse(str(path))
    path.touch()
    assert ModelSpec.parse(str(path)) == ModelSpec(path)


def test_a_precision_that_lies_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r"fp32, bf16, got 'int8'.*ld-deploy quantize"):
        ModelSpec.parse("s.onnx@openvino:int8")


@pytest.mark.parametrize("own", ["fp16", "int8"])
def test_a_precision_is_asked_of_a_float32_file(model_file: Any, own: Precision) -> None:
    path = model_file(precision=own)
    assert open_engine(path).facts.precision == own
    with pytest.raises(ConfigError, match=rf"is {own} by its model card, and only an fp32 file is computed in fp32"):
        open_engine(path, precision="fp32")
    with pytest.raises(ConfigError, match=rf"is {own} by its model card.*leave the precision out"):
        open_engine(path, backend="openvino", precision="fp32")
    assert open_engine(model_file(name="own.onnx"), precision="fp32").facts.precision == "fp32"


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="use backend openvino"):
        open_engine("s.onnx", precision="bf16")
    with pytest.raises(ConfigError, match="device cpu here, got 'cuda'"):
        open_engine("s.onnx", backend="openvino", device="cuda")
    with pytest.raises(EngineError, match=r"no engine runs s\.txt.*`ld-deploy build s\.onnx -o s\.engine`"):
        open_engine("s.txt")
