from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from ld_export.nms_function import nms_model
from ld_export.tensorrt_engine import BuildProfile, build_engine, nms_form, profile_shapes, read_card
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, ModelCardError
from ld_runtime.model_card import ModelCard, NmsSettings


def card_of(path: Path) -> ModelCard:
    return read_card(path.read_bytes(), model=path)


def test_tensorrt_rtx_builds_the_file(student: Path, tmp_path: Path) -> None:
    """In an interpreter of its own: no torch, no plugin, and a crash of the library is seen as one."""
    engine = tmp_path / "student.engine"
    capabilities = [word for one in ("8.6", "8.9", "12.0") for word in ("--compute-capability", one)]
    command = ["build", str(student), "-o", str(engine), *capabilities, "--batch", "1", "2", "4"]
    code = f"import sys; sys.modules['torch'] = None; from ld_runtime.cli import main; main({command!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "NMS as function" in " ".join(done.stderr.split())
    facts = json.loads((tmp_path / "student.engine.json").read_text(encoding="utf-8"))
    assert facts["nms"] == "function"
    assert facts["compute_capabilities"] == ["8.6", "8.9", "12.0"]
    assert facts["profile"] == {"min": [1, 32, 32, 3], "opt": [2, 160, 224, 3], "max": [4, 224, 224, 3]}
    assert facts["onnx_sha256"] == hashlib.sha256(student.read_bytes()).hexdigest()
    assert facts["engine_sha256"] == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert ModelCard.from_json(json.dumps(facts["card"])) == card_of(student)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["student.engine", "student.engine.json"]


def test_profiles(student: Path, candidates_file: Path) -> None:
    card, fixed = card_of(student), card_of(candidates_file)
    free = (-1, -1, -1, 3)
    assert profile_shapes(free, card=card, profile=BuildProfile()) == (
        (1, 32, 32, 3),
        (1, 160, 224, 3),
        (8, 224, 224, 3),
    )
    asked = BuildProfile(batch=(2, 2, 2), min_hw=(64, 64), opt_hw=(64, 96), max_hw=(96, 96))
    assert profile_shapes(free, card=card, profile=asked) == ((2, 64, 64, 3), (2, 64, 96, 3), (2, 96, 96, 3))
    assert profile_shapes((-1, 160, 192, 3), card=fixed, profile=asked) == ((2, 160, 192, 3),) * 3


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (BuildProfile(batch=(2, 1, 8)), "must grow from min to opt to max"),
        (BuildProfile(min_hw=(192, 32)), "must grow from min to opt to max"),
        (BuildProfile(min_hw=(33, 32)), "must be multiples of 32"),
        (BuildProfile(batch=(0, 1, 8)), "batches 1 or more"),
    ],
)
def test_bad_profiles(student: Path, profile: BuildProfile, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        profile_shapes((-1, -1, -1, 3), card=card_of(student), profile=profile)


def test_bad_files(tmp_path: Path) -> None:
    output = tmp_path / "out.engine"
    with pytest.raises(
        EngineError, match=r"cannot read .*nowhere.onnx.*: make it with|; make it with `ld-deploy export"
    ):
        build_engine(tmp_path / "nowhere.onnx", output=output)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match=r"damaged.onnx is no ONNX file, or it is damaged"):
        build_engine(damaged, output=output)
    foreign = tmp_path / "foreign.onnx"
    onnx.save(nms_model(settings=NmsSettings()), foreign)
    with pytest.raises(ModelCardError, match=r"foreign.onnx carries no model card: make it with"):
        build_engine(foreign, output=output)
    assert not output.exists()


def test_a_file_that_the_parser_refuses(student: Path, tmp_path: Path) -> None:
    model = onnx.load(student)
    del model.functions[:]  # no function, no plugin
    path = tmp_path / "bare.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=r"tensorrt-rtx .* cannot parse .*bare.onnx: .*[Pp]lugin"):
        build_engine(path, output=tmp_path / "out.engine")


@pytest.mark.parametrize(
    ("capability", "message"), [("9.0", r"knows no compute capability 9.0; it knows 7.5"), ("x", "x")]
)
def test_unknown_gpus(student: Path, tmp_path: Path, capability: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_engine(student, output=tmp_path / "out.engine", compute_capabilities=(capability,))


def test_a_missing_library(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendMissingError, match="tensorrt is not installed: pip install tensorrt"):
        build_engine(student, output=tmp_path / "out.engine", backend="tensorrt")


class Kinds:
    PLUGIN_V3, RECURRENCE, CONVOLUTION = range(3)


class Network:
    def __init__(self, *kinds: int) -> None:
        self.kinds, self.num_layers = kinds, len(kinds)

    def get_layer(self, index: int) -> Any:
        return type("Layer", (), {"type": self.kinds[index]})


def test_which_form_of_the_nms_the_network_got(student: Path, candidates_file: Path) -> None:
    trt = type("Trt", (), {"LayerType": Kinds})
    card, without = card_of(student), card_of(candidates_file)
    assert nms_form(trt, Network(Kinds.CONVOLUTION, Kinds.PLUGIN_V3), card=card) == "plugin"
    assert nms_form(trt, Network(Kinds.CONVOLUTION, Kinds.RECURRENCE), card=card) == "function"
    assert nms_form(trt, Network(Kinds.CONVOLUTION), card=without) == "none"
    with pytest.raises(EngineError, match="holds no NMS, though the model card says so"):
        nms_form(trt, Network(Kinds.CONVOLUTION), card=card)
