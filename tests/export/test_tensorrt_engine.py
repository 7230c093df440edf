"""Engines as TensorRT-RTX builds them, on the CPU, and the plugins that a build takes."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ld_export import deployed_file
from ld_export.build_settings import BuildSettings
from ld_export.build_target import plugin_for
from ld_export.tensorrt_engine import build_engine, nms_form, up_to_date
from ld_runtime.engine_file import ShapeRange, read_engine
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError
from ld_runtime.model_card import ModelCard
from ld_runtime.rotated_nms import RotatedNmsSettings
from ld_runtime.tensorrt_library import OPS

GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0")


def card_of(path: Path) -> ModelCard:
    return deployed_file.read(path)[1]


@pytest.fixture(scope="module")
def engines(student: Path, int8_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Built in one interpreter of their own: no torch, no plugin, and a crash of the library is seen as one."""
    folder = tmp_path_factory.mktemp("engines")
    capabilities = [word for one in GPUS for word in ("--compute-capability", one)]
    calls = {}
    for precision in ("fp32", "fp16", "int8"):
        source = int8_file if precision == "int8" else student
        calls[precision] = ["build", str(source), "-o", str(folder / f"{precision}.engine"), *capabilities]
    calls["fp16"] += ["--precision", "fp16", "--batch", "1", "2", "4"]
    calls["bf16"] = ["build", str(student), "-o", str(folder / "bf16.engine"), "--precision", "bf16"]
    code = f"""
import sys
sys.modules["torch"] = None
from ld_runtime.cli import run
for call in {list(calls.values())!r}:
    try:
        run(call[0], call[1:])
    except SystemExit as done:
        assert not done.code, done.code
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "screen.txt").write_text(" ".join((done.stdout + done.stderr).split()), encoding="utf-8")
    return {precision: folder / f"{precision}.engine" for precision in calls}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "bf16"])
def test_tensorrt_rtx_builds_each_precision(
    engines: dict[str, Path], student: Path, int8_file: Path, precision: str
) -> None:
    content, record = read_engine(engines[precision])
    source = int8_file if precision == "int8" else student
    assert len(content) > 10_000
    assert (record.backend, record.nms, record.plugin, record.gpu) == ("tensorrt-rtx", "function", None, "")
    assert record.precision == precision
    assert record.card == replace(card_of(student), precision=precision)  # type: ignore[arg-type]
    assert record.onnx_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record.precision_proof.engine is None
    assert "chooses its kernels on the GPU" in record.precision_proof.remark
    graph = record.precision_proof.graph
    assert graph is not None
    assert graph.layers == {precision: 1.0}
    assert graph.tensors[precision] > (0.5 if precision != "int8" else 0.2)
    assert (
        record.compute_capabilities == GPUS if precision != "bf16" else "7.5" not in (record.compute_capabilities or ())
    )
    batches = " ".join(str(shape[0]) for shape in (record.profile.min, record.profile.opt, record.profile.max))
    assert record.rebuild_command(Path("a/b.engine")) == (
        f"`ld-deploy build {source.name} -o b.engine --backend tensorrt-rtx --precision {precision} "
        f"--batch {batches} --min-hw 32 32 --opt-hw 160 224 --max-hw 224 224`"
    )


def test_what_the_command_says_and_leaves(engines: dict[str, Path]) -> None:
    folder = engines["fp32"].parent
    screen = (folder / "screen.txt").read_text(encoding="utf-8")
    assert screen.count("NMS as function") == 4
    assert "precision fp16: graph: layers 100% fp16" in screen
    _, record = read_engine(engines["fp16"])
    assert record.profile == ShapeRange((1, 32, 32, 3), (2, 160, 224, 3), (4, 224, 224, 3))
    names = {f"{precision}.engine{end}" for precision in engines for end in ("", ".json")}
    assert {one.name for one in folder.iterdir()} == names | {"screen.txt"}


def test_an_engine_that_is_there_is_not_built_again(engines: dict[str, Path], student: Path) -> None:
    settings = BuildSettings(compute_capabilities=GPUS)
    before = engines["fp32"].stat().st_mtime_ns
    said: list[str] = []
    record = build_engine(student, output=engines["fp32"], settings=settings, progress=said.append)
    assert engines["fp32"].stat().st_mtime_ns == before
    assert len(said) == 1
    assert "is up to date" in said[0]
    assert "--force" in said[0]
    assert up_to_date(engines["fp32"], key=record.cache_key) == record
    assert up_to_date(engines["fp32"], key="other") is None
    assert up_to_date(engines["fp32"].with_name("nowhere.engine"), key=record.cache_key) is None


def test_a_damaged_engine_is_not_up_to_date(engines: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.engine"
    content, record = read_engine(engines["fp32"])
    copy.write_bytes(content)
    copy.with_name("copy.engine.json").write_text(record.to_json(), encoding="utf-8")
    assert up_to_date(copy, key=record.cache_key) == record
    copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert up_to_date(copy, key=record.cache_key) is None


class Registry:
    """Of plugins: takes a library whose name holds `good`."""

    def __init__(self, *ops: str) -> None:
        self.ops = set(ops)

    def load_library(self, path: str) -> None:
        self.ops |= set(OPS) if "good" in path or "trt11" in path else set(OPS) - {"ClusterDIoUNMS"}

    def get_creator(self, op: str, version: str, namespace: str) -> object | None:
        return object() if op in self.ops and (version, namespace) == ("1", "ld_deploy") else None


def with_registry(*ops: str) -> Any:
    registry = Registry(*ops)
    return SimpleNamespace(__version__="11.4.0.106", get_plugin_registry=lambda: registry)


def test_plugins_that_are_used(
    student: Path, candidates_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_of(student)
    monkeypatch.setattr("ld_runtime.__path__", [str(tmp_path)])
    usual = BuildSettings(backend="tensorrt")
    assert plugin_for(with_registry(), usual, card) is None  # it was not built
    with pytest.raises(BackendMissingError, match=r"plugin for tensorrt 11 was not built: make plugin"):
        plugin_for(with_registry(), replace(usual, plugin=True), card)
    (tmp_path / "lib").mkdir()
    found = tmp_path / "lib" / "libld_deploy_plugin_trt11.so"
    found.touch()
    library = with_registry()
    assert plugin_for(library, usual, card) == found
    assert library.get_plugin_registry().ops == set(OPS)
    library = with_registry()
    assert plugin_for(library, replace(usual, plugin=False), card) is None
    assert not library.get_plugin_registry().ops
    own = tmp_path / "good.so"
    with pytest.raises(BackendMissingError, match=r"no plugin library .*good.so: make plugin"):
        plugin_for(with_registry(), replace(usual, plugin_library=own), card)
    own.touch()
    assert plugin_for(with_registry(), replace(usual, plugin_library=own), card) == own
    bad = tmp_path / "bad.so"
    bad.touch()
    with pytest.raises(BackendMissingError, match=r"bad.so registers no ClusterDIoUNMS with tensorrt 11.4"):
        plugin_for(with_registry(), replace(usual, plugin_library=bad), card)
    without = card_of(candidates_file)
    assert plugin_for(with_registry(), usual, without) is None
    with pytest.raises(ConfigError, match="ends in candidates"):
        plugin_for(with_registry(), replace(usual, plugin=True), without)


def test_a_plugin_would_end_the_process_of_tensorrt_rtx(student: Path) -> None:
    assert plugin_for(with_registry(), BuildSettings(), card_of(student)) is None
    with pytest.raises(EngineError, match=r"GFLDetect is registered with tensorrt-rtx, which would end the process"):
        plugin_for(with_registry("GFLDetect"), BuildSettings(), card_of(student))


class Kinds:
    PLUGIN_V3, RECURRENCE, CONVOLUTION = range(3)


class Network:
    def __init__(self, *kinds: int, inputs: int = 1) -> None:
        self.kinds, self.num_layers, self.inputs = kinds, len(kinds), inputs

    def get_layer(self, index: int) -> Any:
        return SimpleNamespace(type=self.kinds[index], num_inputs=self.inputs)


def test_which_form_of_the_nms_the_network_got(student: Path, candidates_file: Path) -> None:
    trt = SimpleNamespace(LayerType=Kinds)
    card, without = card_of(student), card_of(candidates_file)
    assert nms_form(trt, Network(Kinds.CONVOLUTION, Kinds.PLUGIN_V3, inputs=10), card=card) == ("plugin", "GFLDetect")
    assert nms_form(trt, Network(Kinds.PLUGIN_V3, inputs=3), card=card) == ("plugin", "ClusterDIoUNMS")
    rotated = replace(card, nms=RotatedNmsSettings(), nms_kind="rotated_cluster", box_format="cxcywha")
    assert nms_form(trt, Network(Kinds.PLUGIN_V3, inputs=10), card=rotated) == ("plugin", "RotatedGFLDetect")
    assert nms_form(trt, Network(Kinds.CONVOLUTION, Kinds.RECURRENCE), card=card) == ("function", "")
    assert nms_form(trt, Network(Kinds.CONVOLUTION), card=without) == ("none", "")
    with pytest.raises(EngineError, match="holds no NMS, though the model card says so"):
        nms_form(trt, Network(Kinds.CONVOLUTION), card=card)
