"""`--json`: every command has it, and standard output is one JSON object."""

import inspect
import json
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import cv2
import pytest

from ld_runtime import cli, screen
from ld_runtime.errors import InputError, ParityError

ROOT = Path(__file__).parents[2]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any, str]:
    """Exit status, the object of stdout and stderr of `ld-deploy ARGUMENTS --json`."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), json.loads(captured.out), captured.err


@pytest.mark.parametrize("name", cli.SUMMARIES)
def test_every_command_has_the_option(name: str) -> None:
    (entry,) = [entry for entry in entry_points(group=cli.GROUP) if entry.name == name]
    parameter = inspect.signature(entry.load(), eval_str=True).parameters["as_json"]
    assert parameter.annotation == screen.JsonOption
    assert parameter.default is False


def test_detect(capsys, model_file, rectangles, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), rectangles((96, 160), blue=(10, 20, 50, 60)))
    status, found, text = run(capsys, "detect", model_file(), tmp_path / "a.png", "-o", tmp_path / "out")
    assert status == 0
    assert (found["images"], found["detections"], found["refused"]) == (1, 1, 0)
    assert json.loads(Path(found["output"]).read_text(encoding="utf-8"))["annotations"]
    assert "1 detections in 1 images" in " ".join(text.split())


def test_a_result_before_an_error_stays_the_only_object(capsys, model_file, rectangles, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), rectangles((96, 160), blue=(10, 20, 50, 60)))
    (images / "b.png").write_bytes(b"no picture")
    status, found, text = run(capsys, "detect", model_file(), images, "-o", tmp_path / "out")
    assert status == 2
    assert (found["images"], found["refused"]) == (1, 1)
    assert "error:" in text


def test_bench(capsys, model_file, rectangles, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), rectangles((96, 160), blue=(10, 20, 50, 60)))
    output = tmp_path / "bench.json"
    options = ("--images", tmp_path / "a.png", "--seconds", 0.1, "--batch-sizes", 1, "-o", output)
    status, found, _ = run(capsys, "bench", model_file(), *options)
    assert status == 0
    assert found == json.loads(output.read_text(encoding="utf-8"))


def test_published_and_doctor(capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    status, found, text = run(capsys, "published")
    assert status == 0
    assert len(found["configs"]) > 10
    assert "published AP" in text
    _, found, _ = run(capsys, "doctor")
    assert isinstance(found, dict)
    assert "error" not in found


def test_an_error_is_an_object(capsys, model_file, tmp_path: Path) -> None:
    status, found, text = run(capsys, "detect", model_file(), tmp_path / "none.png", "-o", tmp_path / "out")
    assert status == 2
    assert found["error"]["type"] == "InputError"
    assert "none.png" in found["error"]["message"]
    assert "error:" in text


@pytest.mark.parametrize(("error", "status"), [(InputError("x [y]"), 2), (ParityError("x [y]"), 1)])
def test_the_status_stays(capsys, monkeypatch, error: Exception, status: int) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "run", fail)
    expected = {"error": {"type": type(error).__name__, "message": "x [y]"}}
    assert run(capsys, "detect")[:2] == (status, expected)
    # A second command of the same process starts anew.
    assert run(capsys, "detect")[:2] == (status, expected)


def test_without_the_option_an_error_leaves_standard_output_empty(capsys, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        cli.main(["detect", "none.onnx", str(tmp_path / "none.png"), "-o", str(tmp_path)])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("as_json", [True, False])
def test_what_libraries_print_goes_to_standard_error(capsys, *, as_json: bool) -> None:
    shown = screen.Screen(as_json=as_json)
    with shown.captured():
        sys.stdout.write("log\n")
        shown.console.print("text")
    shown.result({"key": 1})
    captured = capsys.readouterr()
    assert captured.out == ('{\n "key": 1\n}\n' if as_json else "log\ntext\n")
    assert captured.err == ("log\ntext\n" if as_json else "")


@pytest.mark.parametrize(("rank", "speaks"), [(None, True), ("0", True), ("1", False), ("7", False)])
@pytest.mark.parametrize("as_json", [True, False])
def test_of_the_processes_of_torchrun_the_first_speaks(
    capsys, monkeypatch, rank: str | None, *, speaks: bool, as_json: bool
) -> None:
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    shown = screen.Screen(as_json=as_json)
    shown.console.print("text")
    shown.result({"key": 1})
    captured = capsys.readouterr()
    printed = '{\n "key": 1\n}\n' if as_json else "text\n"
    assert captured.out == (printed if speaks else "")
    assert captured.err == ("text\n" if as_json and speaks else "")
