"""What `recommend --build` makes: INT8 once, engines of what is installed, and why not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from ld_export import deployed_file, make_missing
from ld_export.quantize_report import report_path
from ld_runtime.engines import ModelSpec
from ld_runtime.errors import BackendMissingError
from ld_runtime.missing_files import MadeFiles, MakeSettings, find_maker

if TYPE_CHECKING:
    from pathlib import Path


def make(*given: Path | ModelSpec, said: list[str] | None = None, **settings: Any) -> MadeFiles:
    specs = [one if isinstance(one, ModelSpec) else ModelSpec(one) for one in given]
    say = (said if said is not None else []).append
    return make_missing.make_missing(specs, settings=MakeSettings(**settings), say=say)


def test_int8_is_made_once(student: Path, data_root: Path, tmp_path: Path) -> None:
    settings = {"folder": tmp_path, "device": "cpu", "calibration": str(data_root / "*.png"), "count": 2}
    output = tmp_path / "student.int8.onnx"
    said: list[str] = []
    first = make(student, said=said, **settings)
    assert (first.specs, first.reused, first.not_made) == ((ModelSpec(output),), (), ())
    assert said == [f"quantize {student} on 2 images -> {output}"]
    assert deployed_file.read(output)[1].precision == "int8"
    before = output.read_bytes()
    again = make(student, said=said, **settings)
    assert (again.specs, again.reused, len(said)) == (first.specs, (str(output),), 1)
    assert output.read_bytes() == before
    make(student, said=said, **{**settings, "count": 1})  # other images
    assert len(said) == 2
    output.write_bytes(before + b"x")  # not the file that its report is of
    make(student, said=said, **settings)
    report_path(output).write_text("[]", encoding="utf-8")
    make(student, said=said, **settings)
    assert len(said) == 4


def test_int8_is_not_made_without_images_or_of_a_file_that_has_it(
    student: Path, int8_file: Path, tmp_path: Path
) -> None:
    found = make(student, folder=tmp_path, device="cpu")
    assert not found.specs
    (missing,) = found.not_made
    assert (missing.what, missing.command) == (str(tmp_path / "student.int8.onnx"), "give --calibration IMAGES")
    assert make(student, int8_file, folder=tmp_path, device="cpu", calibration="x") == MadeFiles()
    assert make(ModelSpec(student, "openvino"), folder=tmp_path, device="cpu") == MadeFiles()  # named: left alone
    (wrong,) = make(student, folder=tmp_path, device="cpu", calibration="nowhere").not_made
    assert "no image found" in wrong.reason
    assert make(tmp_path / "gone.onnx", tmp_path / "x.engine", folder=tmp_path, device="cpu") == MadeFiles()


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Engines that nothing builds; what was asked for is kept."""
    calls: list[tuple[Any, ...]] = []

    def build(model: Path, *, output: Path, settings: Any) -> Any:
        if settings.precision == "bf16":
            raise BackendMissingError("no bf16 here")
        calls.append((model.name, output.name, settings.backend, settings.precision, settings.compute_capabilities))
        return SimpleNamespace(cache_key="ab")

    def device(index: int) -> Any:
        assert index == 1
        return SimpleNamespace(facts=SimpleNamespace(compute_capability="8.9"))

    monkeypatch.setattr(make_missing, "build_engine", build)
    monkeypatch.setattr(make_missing, "CudaDevice", device)
    return calls


def test_engines_of_what_is_installed(
    student: Path, int8_file: Path, tmp_path: Path, built: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_missing, "find_spec", lambda name: name == "tensorrt_rtx" or None)
    found = make(student, int8_file, folder=tmp_path, device="cuda:1")
    assert built == [
        ("student.onnx", "student.fp32.tensorrt-rtx.engine", "tensorrt-rtx", "fp32", ("8.9",)),
        ("student.onnx", "student.fp16.tensorrt-rtx.engine", "tensorrt-rtx", "fp16", ("8.9",)),
        ("student.int8.onnx", "student.int8.tensorrt-rtx.engine", "tensorrt-rtx", "int8", ("8.9",)),
    ]
    assert [one.path.name for one in found.specs] == [one[1] for one in built]
    assert not found.reused
    assert [(one.what, one.reason) for one in found.not_made] == [
        (str(tmp_path / "student.bf16.tensorrt-rtx.engine"), "no bf16 here")
    ]
    monkeypatch.setattr(make_missing, "_engine_key", lambda engine: "ab" if "fp16" in engine.name else None)
    assert make(int8_file, student, folder=tmp_path, device="cuda:1").reused == (
        str(tmp_path / "student.fp16.tensorrt-rtx.engine"),
    )
    built.clear()
    monkeypatch.setattr(make_missing, "find_spec", lambda name: name == "tensorrt" or None)
    make(int8_file, folder=tmp_path, device="cuda:1")
    assert built == [("student.int8.onnx", "student.int8.tensorrt.engine", "tensorrt", "int8", ())]


def test_the_entry_point_is_it() -> None:
    assert find_maker() is make_missing.make_missing
