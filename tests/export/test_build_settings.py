"""What a build is asked for, refused for, and how far it is: all without an engine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from ld_export import deployed_file
from ld_export.build_progress import PhaseMeter, progress_monitor
from ld_export.build_settings import BuildProfile, BuildSettings, cache_key, profile_shapes
from ld_export.build_target import targets_of
from ld_export.nms_function import nms_model
from ld_export.tensorrt_engine import build_engine, in_precision
from ld_runtime.engine_file import ShapeRange
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, LdDeployError, ModelCardError
from ld_runtime.model_card import ModelCard, NmsSettings


def card_of(path: Path) -> ModelCard:
    return deployed_file.read(path)[1]


@pytest.mark.parametrize(
    "change",
    [
        {"settings": BuildSettings(backend="tensorrt")},
        {"settings": BuildSettings(tf32=True)},
        {"settings": BuildSettings(backend="tensorrt", serialize_plugin=True)},
        {"content_sha256": "b"},
        {"version": "11.4"},
        {"compute_capabilities": ("8.9",)},
        {"compute_capabilities": ()},
        {"shapes": ShapeRange((1, 32, 32, 3), (1, 64, 64, 3), (1, 64, 96, 3))},
        {"plugin_sha256": "c"},
    ],
)
def test_what_the_key_depends_on(change: dict[str, Any]) -> None:
    usual: dict[str, Any] = {
        "settings": BuildSettings(),
        "content_sha256": "a",
        "version": "11.1",
        "compute_capabilities": None,
        "shapes": ShapeRange((1, 32, 32, 3), (1, 64, 64, 3), (1, 64, 64, 3)),
        "plugin_sha256": "",
    }
    keys = {cache_key(**{key: value for key, value in one.items() if key != "settings"}, settings=one["settings"])
            for one in (usual, {**usual, **change})}  # fmt: skip
    assert len(keys) == 2


def test_the_key_does_not_depend_on_where_things_lie() -> None:
    shapes = ShapeRange((1, 32, 32, 3), (1, 64, 64, 3), (1, 64, 64, 3))
    keys = {
        cache_key(one, content_sha256="a", version="1", compute_capabilities=None, shapes=shapes, plugin_sha256="")
        for one in (
            BuildSettings(backend="tensorrt", timing_cache=Path("x"), force=True),
            BuildSettings(backend="tensorrt"),
        )
    }
    assert len(keys) == 1


def test_profiles(student: Path, candidates_file: Path) -> None:
    card, fixed = card_of(student), card_of(candidates_file)
    usual = ShapeRange((1, 32, 32, 3), (1, 160, 224, 3), (8, 224, 224, 3))
    assert profile_shapes(None, card=card, profile=BuildProfile()) == usual
    asked = BuildProfile(batch=(2, 2, 2), min_hw=(64, 64), opt_hw=(64, 96), max_hw=(96, 96))
    expected = ShapeRange((2, 64, 64, 3), (2, 64, 96, 3), (2, 96, 96, 3))
    assert profile_shapes(None, card=card, profile=asked) == expected
    assert profile_shapes((160, 192), card=fixed, profile=asked) == ShapeRange(*[(2, 160, 192, 3)] * 3)
    assert expected.holds((2, 96, 64, 3))
    assert not any(expected.holds(shape) for shape in ((1, 64, 64, 3), (2, 97, 64, 3), (2, 64, 63, 3), (2, 64, 64)))


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
        profile_shapes(None, card=card_of(student), profile=profile)


def test_bad_files(tmp_path: Path) -> None:
    output = tmp_path / "out.engine"
    with pytest.raises(EngineError, match=r"cannot open .*nowhere.onnx: there is no such file; make it"):
        build_engine(tmp_path / "nowhere.onnx", output=output)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match=r"damaged.onnx is damaged or no ONNX file"):
        build_engine(damaged, output=output)
    foreign = tmp_path / "foreign.onnx"
    onnx.save(nms_model(settings=NmsSettings()), foreign)
    with pytest.raises(ModelCardError, match=r"foreign.onnx carries no model card.*Make it with"):
        build_engine(foreign, output=output)
    assert not output.exists()


def test_a_file_that_the_parser_refuses(student: Path, tmp_path: Path) -> None:
    model = onnx.load(student)
    del model.functions[:]  # no function, no plugin
    path = tmp_path / "bare.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=r"tensorrt-rtx .* cannot parse .*bare.onnx: .*[Pp]lugin"):
        build_engine(path, output=tmp_path / "out.engine")


def test_precisions_that_a_file_does_not_have(student: Path, int8_file: Path) -> None:
    model, card = deployed_file.read(student)
    assert in_precision(model, card, None, model=student) == (model, card)
    assert in_precision(model, card, "fp32", model=student) == (model, card)
    for wanted in ("int8", "fp8"):
        with pytest.raises(
            ConfigError, match=rf"student.onnx is fp32.*ld-deploy quantize student.onnx --precision {wanted}"
        ):
            in_precision(model, card, wanted, model=student)  # type: ignore[arg-type]
    quantized, its_card = deployed_file.read(int8_file)
    for wanted in ("fp32", "fp16", "bf16", "fp8"):
        with pytest.raises(ConfigError, match=rf"is int8 by its model card, and --precision {wanted} was asked for"):
            in_precision(quantized, its_card, wanted, model=int8_file)  # type: ignore[arg-type]


def test_a_card_that_promises_too_much(student: Path, tmp_path: Path) -> None:
    model, card = deployed_file.read(student)
    path = tmp_path / "false.onnx"
    deployed_file.write(model, path, card=replace(card, precision="fp16"))
    with pytest.raises(EngineError, match=r"false.onnx is called fp16, and has not one layer and tensor in it"):
        build_engine(path, output=tmp_path / "out.engine")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plugin": True}, "tensorrt-rtx has no plugins"),
        ({"plugin_library": Path("x.so")}, "tensorrt-rtx has no plugins"),
        ({"serialize_plugin": True}, "tensorrt-rtx has no plugins"),
        ({"timing_cache": Path("x")}, "measures nothing"),
        ({"backend": "tensorrt", "compute_capabilities": ("8.6",)}, "for the GPU at hand alone"),
        ({"backend": "tensorrt", "plugin": False, "serialize_plugin": True}, "--no-plugin goes with neither"),
        ({"backend": "tensorrt", "plugin": False, "plugin_library": Path("x")}, "--no-plugin goes with neither"),
    ],
)
def test_settings_that_do_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BuildSettings(**fields)


def test_a_missing_library(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendMissingError, match="tensorrt is not installed: pip install tensorrt"):
        build_engine(student, output=tmp_path / "out.engine", settings=BuildSettings(backend="tensorrt"))


# What is built for.

RTX = SimpleNamespace(
    __version__="1.7",
    ComputeCapability=SimpleNamespace(__members__=dict.fromkeys(("SM75", "SM89", "SM120", "CURRENT"))),
)


def test_gpus_that_are_built_for() -> None:
    assert targets_of(RTX, BuildSettings(), "fp32") == ("", None)
    assert targets_of(RTX, BuildSettings(), "bf16") == ("", ("8.9", "12.0"))
    assert targets_of(RTX, BuildSettings(compute_capabilities=("8.9",)), "fp8") == ("", ("8.9",))
    with pytest.raises(ConfigError, match=r"knows no compute capability 9.0, x; it knows 7.5, 8.9, 12.0"):
        targets_of(RTX, BuildSettings(compute_capabilities=("9.0", "8.9", "x")), "fp32")
    with pytest.raises(ConfigError, match=r"bf16 needs compute capability 8.0, 7.5 is to be built for"):
        targets_of(RTX, BuildSettings(compute_capabilities=("7.5", "8.9")), "bf16")


def test_nothing_is_built_that_cannot_be_written(student: Path, tmp_path: Path) -> None:
    settings = BuildSettings(compute_capabilities=("8.6",))
    (tmp_path / "file").touch()
    for output, reason in ((tmp_path, "it is a folder"), (tmp_path / "file" / "a.engine", "exists|directory")):
        said: list[str] = []
        with pytest.raises(LdDeployError, match=f"cannot write .*: .*({reason})"):
            build_engine(student, output=output, settings=settings, progress=said.append)
        assert said == []


# Progress.


def test_phases_as_one_share() -> None:
    told: list[tuple[str, float]] = []
    meter = PhaseMeter(lambda name, share: told.append((name, share)))
    meter.start("build", None, 2)
    meter.start("time", "build", 4)
    meter.step("time", 0)  # a quarter of the first half
    meter.start("one", "time", 2)
    meter.step("one", 0)  # half of the second quarter
    meter.finish("one")
    meter.step("time", 1)
    meter.finish("time")
    meter.step("build", 0)
    meter.finish("build")
    assert [share for _, share in told] == [0, 0, 0.125, 0.125, 0.1875, 0.25, 0.25, 0.5, 0.5, 1.0]
    assert told[3][0] == "one"
    meter.step("unknown", 3)
    meter.finish("unknown")
    assert meter.share == 1.0


def test_control_c_stops_the_build_and_not_the_library() -> None:
    def tell(_name: str, share: float) -> None:
        if share > 0:
            raise KeyboardInterrupt

    base = type("IProgressMonitor", (), {})
    monitor = progress_monitor(SimpleNamespace(IProgressMonitor=base), PhaseMeter(tell))
    monitor.phase_start("build", None, 2)
    assert not monitor.interrupted
    assert monitor.step_complete("build", 0) is False
    assert monitor.interrupted
    monitor.phase_finish("build")
