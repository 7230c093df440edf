"""`verify --explain` of an engine: a made one, whose boxes are those of another .onnx file, since there is no GPU."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from ld_export import verify as module
from ld_export.explain_engine import EngineExplanation
from ld_export.explain_table import explanation_tables
from ld_export.verify import Verification, verify
from ld_runtime.bench_report import sha256_of
from ld_runtime.detector import Detector
from ld_runtime.engine_file import EngineRecord, PluginUse, ShapeRange, write_record
from ld_runtime.onnx_file import read_card, read_file
from ld_runtime.precision_proof import PrecisionProof, TypeShares

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Explain = Callable[..., Verification]


@pytest.fixture
def explain(config_file: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Explain:
    """Verifies `student.engine`: its JSON names an .onnx file, and it finds what another file finds."""

    def start(*, of: Path, finds_as: Path, **fields: Any) -> Verification:
        card = read_card(read_file(of), path=of)
        record = EngineRecord(
            card=replace(card, precision="fp16"),
            backend="tensorrt",
            backend_version="11.4",
            compute_capabilities=("8.9",),
            gpu="made up",
            profile=ShapeRange((1, 32, 32, 3), (1, 64, 96, 3), (8, 96, 96, 3)),
            tf32=False,
            nms="plugin",
            plugin=PluginUse(op="GFLDetect", sha256="ab", serialized=False),
            precision_proof=PrecisionProof(graph=TypeShares.of(layers=["fp16"], tensors=["fp16"])),
            onnx=of.name,
            onnx_sha256=sha256_of(of),
            engine_sha256="cd",
            cache_key="ef",
            build_seconds=1.0,
        )
        engine = tmp_path / "student.engine"
        engine.write_bytes(b"an engine")
        write_record(replace(record, **fields), engine)

        def opened(path: Path, **_: Any) -> Detector:
            assert path == engine  # the .onnx beside it is opened by the explanation, on ONNX Runtime
            return Detector(finds_as)

        monkeypatch.setattr(module, "Detector", opened)
        monkeypatch.setattr(module, "proof_of", lambda *_: PrecisionProof())
        return verify(config_file, checkpoint=checkpoint, models=[engine], with_mmdet=False, explained=True)

    return start


def beside(onnx: Path, tmp_path: Path) -> Path:
    path = tmp_path / onnx.name
    path.write_bytes(onnx.read_bytes())
    return path


def test_the_engine_own_part(explain: Explain, student: Path, int8_file: Path, tmp_path: Path) -> None:
    result = explain(of=beside(student, tmp_path), finds_as=int8_file)
    found = result.explanations["student.engine"]
    assert isinstance(found, EngineExplanation)
    assert found.onnx.owner is None  # the float file agrees with PyTorch in every stage
    assert found.step.moved > 20
    assert found.step.ap == pytest.approx(result.report.ap["student.engine"].ap, abs=1e-9)
    difference = result.report.ap["student.engine"].ap - result.report.ap["PyTorch"].ap
    assert found.step.ap_difference == pytest.approx(difference, abs=1e-6)
    sentence = found.sentence()
    assert sentence.startswith(f"student.engine: the engine moves {found.step.moved} boxes, ")
    assert "its network computes in fp16, the file's in fp32; decode and NMS are its plugin in fp32" in sentence
    assert sentence.endswith("student.onnx: no stage differs (on ONNX Runtime, against PyTorch)")
    content = result.content()["explanation"]["student.engine"]
    assert (content["name"], content["sentence"]) == ("student.engine", sentence)
    assert content["engine"]["moved"] == found.step.moved
    assert content["engine"]["onnx_sha256"] == sha256_of(student)
    assert len(content["chain"]) == 5
    console = Console(width=80, record=True, file=io.StringIO())
    for table in explanation_tables(found):
        console.print(table)
    text = console.export_text()
    assert "student.onnx: its stages" in text
    assert "+ engine" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_an_engine_that_only_has_what_its_file_has(
    explain: Explain, student: Path, int8_file: Path, tmp_path: Path
) -> None:
    result = explain(of=beside(int8_file, tmp_path), finds_as=int8_file)
    found = result.explanations["student.engine"]
    assert isinstance(found, EngineExplanation)
    assert (found.step.moved, found.step.ap_difference) == (0, 0)
    assert found.onnx.owner == "trunk"
    assert found.sentence().startswith(
        "student.engine: its boxes are those of student.int8.onnx on ONNX Runtime; student.int8.onnx: the trunk owns it"
    )


def test_without_its_file_it_says_what_to_put_there(explain: Explain, student: Path, tmp_path: Path) -> None:
    result = explain(of=student, finds_as=student)
    assert not result.explanations
    sha256 = sha256_of(student)[:12]
    assert result.unexplained["student.engine"] == (
        "student.engine: an engine gives no maps, its .onnx file does: put student.onnx with sha256 "
        f"{sha256}, which it was built from, into {tmp_path}"
    )


def test_another_file_of_that_name_is_not_explained(explain: Explain, student: Path, tmp_path: Path) -> None:
    result = explain(of=beside(student, tmp_path), finds_as=student, onnx_sha256="0" * 64)
    assert not result.explanations
    message = result.unexplained["student.engine"]
    assert f"{tmp_path / 'student.onnx'} is another one (sha256 {sha256_of(student)[:12]})" in message
    assert "put student.onnx with sha256 000000000000, which it was built from, there" in message
    assert "or build the engine again: `ld-deploy build student.onnx -o student.engine --backend tensorrt" in message
    assert result.content()["explanation"]["student.engine"] == {"sentence": message}


def test_without_the_host_library(
    explain: Explain, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ld_runtime import native

    monkeypatch.setattr(native, "is_available", lambda: False)
    result = explain(of=beside(student, tmp_path), finds_as=student)
    assert "the native host library is needed (`ld-deploy doctor`)" in result.unexplained["student.engine"]
