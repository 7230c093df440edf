"""Names that nearly exist, completion and the version, as the command line gives them."""

import json
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from ld_runtime import cli
from ld_runtime.bench_report import peak_rss_mb
from ld_runtime.completion import BASH, completions
from ld_runtime.engines import ModelSpec
from ld_runtime.errors import EngineError
from ld_runtime.nearest import nearest


def test_nearest() -> None:
    assert nearest("benhc", ["detect", "bench"]) == "; did you mean 'bench'?"
    assert nearest("RBC", ["wbc", "rbc"]) == "; did you mean 'rbc'?"
    assert nearest("xyz", ["detect", "bench"]) == ""
    assert nearest("xyz", []) == ""


def test_an_unknown_command_suggests_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["detct"])
    assert stopped.value.code == 2
    assert "there is no command 'detct'; did you mean 'detect'?" in " ".join(capsys.readouterr().err.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == f"ld-deploy {version('ld-deploy')}\n"


def test_completions() -> None:
    assert set(completions(["ld-deploy", "de"], 1)) == {"detect", "demo"}
    assert set(completions(["ld-deploy"], 1)) == set(cli.SUMMARIES)
    assert completions(["ld-deploy", "bench", "--batch"], 2) == ["--batch-sizes"]
    assert "--help" in completions(["ld-deploy", "bench", "--"], 2)
    assert completions(["ld-deploy", "bench", "stu"], 2) == []  # files are the shell's
    assert completions(["ld-deploy", "nothing", "--"], 2) == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
def test_in_bash(tmp_path) -> None:
    command = tmp_path / "ld-deploy"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ld_runtime.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    line = 'COMP_WORDS=(ld-deploy bench --batch); COMP_CWORD=2; _ld_deploy; echo "${COMPREPLY[@]}"'
    script = f'PATH="{tmp_path}:$PATH"\n{BASH}\n{line}'
    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "--batch-sizes\n"


def test_a_failed_memory_child_is_an_error_of_ours(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"memory of .*none\.onnx ended with 1: .*none\.onnx"):
        peak_rss_mb(ModelSpec(tmp_path / "none.onnx"), device="cpu", nms=None, image=tmp_path / "a.png")


def test_doctor_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0
    parts = {one["part"]: one for one in content["parts"]}
    assert parts["OpenCV"]["installed"].startswith("opencv-python-headless ")
    assert all((one["installed"] is None) == (one["command"] is not None) for one in content["parts"])
    assert content["broken"] == []


def test_doctor_ends_with_1_when_something_is_broken(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert stopped.value.code == 1
    assert "broken: cv2 cannot be imported" in " ".join(capsys.readouterr().out.split())
