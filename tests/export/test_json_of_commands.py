"""`--json` of the commands that make and prove files: standard output is one JSON document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ld_export.quantize_report import report_path
from tests.json_output import json_of


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_export(capfd: pytest.CaptureFixture[str], config_file: Path, checkpoint: Path) -> None:
    found = json_of(capfd, "export", config_file, checkpoint, "-o", "student.onnx")
    assert Path(found["output"]).is_file()
    assert len(found["card"]["class_names"]) == 3


def test_convert(capfd: pytest.CaptureFixture[str], student: Path) -> None:
    found = json_of(capfd, "convert", student, "--precision", "fp16", "-o", "student.fp16.onnx")
    assert (found["output"], found["precision"]) == ("student.fp16.onnx", "fp16")
    assert found["card"]["precision"] == "fp16"


def test_quantize(capfd: pytest.CaptureFixture[str], student: Path, data_root: Path) -> None:
    options = ("--images", data_root, "--method", "max", "--float-budget", 0, "-o", "student.int8.onnx")
    found = json_of(capfd, "quantize", student, *options)
    assert found == json.loads(report_path(Path("student.int8.onnx")).read_text(encoding="utf-8"))


def test_verify(capfd: pytest.CaptureFixture[str], config_file: Path, checkpoint: Path, student: Path) -> None:
    found = json_of(capfd, "verify", config_file, checkpoint, student, "--limit", 2, "-o", "parity.json")
    assert found == json.loads(Path("parity.json").read_text(encoding="utf-8"))
    assert found["passed"] is True


def test_precision_report(capfd: pytest.CaptureFixture[str], config_file: Path, student: Path) -> None:
    found = json_of(capfd, "precision-report", config_file, student, f"{student}@openvino", "-o", "report.json")
    assert found == json.loads(Path("report.json").read_text(encoding="utf-8"))
    assert len(found["files"]) == 4  # two files on two splits


def test_build(capfd: pytest.CaptureFixture[str], student: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    found = json_of(capfd, "build", student, "-o", "student.engine", "--compute-capability", "8.6")
    assert Path(found["output"]).is_file()
    assert found["record"]["backend"] == "tensorrt-rtx"
