"""Completion: what is answered, that the scripts are what their shells accept, and the way through a shell."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from ld_runtime import cli
from ld_runtime.completion import SCRIPTS, VARIABLE, Shell, completions
from ld_runtime.overview import SUMMARIES


def complete(line: str) -> list[str]:
    """Of a line whose last word is being written."""
    words = line.split(" ")
    return list(completions(words, position=len(words) - 1))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("ld-deploy de", ["demo", "detect"]),
        ("ld-deploy --", ["--help", "--version"]),
        ("ld-deploy bench --batch", ["--batch-sizes"]),
        ("ld-deploy bench a.onnx --images x --comp", ["--compile"]),
        ("ld-deploy build --plugin-", ["--plugin-library"]),
        ("ld-deploy bench --nms ", ["native", "graph"]),
        ("ld-deploy bench --nms n", ["native"]),
        ("ld-deploy build a.onnx --backend tensorrt-", ["tensorrt-rtx"]),
        ("ld-deploy completion ", ["bash", "zsh", "fish", "powershell"]),
        ("ld-deploy completion z", ["zsh"]),
        # Files are the shell's:
        ("ld-deploy bench stu", []),
        ("ld-deploy bench --images ", []),
        ("ld-deploy nothing --", []),
        ("ld-deploy xyz", []),
    ],
)
def test_completions(line: str, found: list[str]) -> None:
    assert sorted(complete(line)) == sorted(found)


def test_everything_at_once() -> None:
    assert complete("ld-deploy ") == list(SUMMARIES)
    assert completions(["ld-deploy"], position=1) == SUMMARIES  # the new word is not there yet
    options = completions(["ld-deploy", "bench", "-"], position=2)
    assert {"--images", "-o", "--output", "--json", "--help"} <= set(options)
    assert options["--seconds"] == "Of each runner, for the spans and for each batch size"


def test_an_answer_is_a_line_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(VARIABLE, "2")
    cli.main(["build", "--pl"])
    assert capsys.readouterr().out.splitlines() == [
        "--plugin\tDecode and NMS as our plugin, for tensorrt",
        "--plugin-library\tThe plugin's library; default libld_deploy_plugin_trtN.so in ld_runtime/lib",
    ]


@pytest.mark.parametrize("position", ["", "x", "0", "2", "9"])
def test_what_makes_no_sense_is_answered_by_nothing(
    position: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, position)
    cli.main([])
    assert not capsys.readouterr().out


HEAVY = ("torch", "mmdet", "mmcv", "mmengine", "numpy", "cv2", "onnx", "onnxruntime", "rich")


@pytest.mark.parametrize("name", SUMMARIES)
def test_it_imports_nothing_heavy(name: str) -> None:
    code = (
        "import os, sys\n"
        f"os.environ[{VARIABLE!r}] = '2'\n"
        "from ld_runtime.cli import main\n"
        f"main([{name!r}, '--'])\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    *found, heavy = done.stdout.splitlines()
    assert any(line.startswith("--json\t") for line in found)
    assert heavy == "[]"


@pytest.mark.parametrize("shell", get_args(Shell))
def test_the_command_prints_the_script(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["completion", shell])
    assert capsys.readouterr().out == SCRIPTS[shell]
    with pytest.raises(SystemExit):
        cli.main(["completion", shell, "--json"])
    assert json.loads(capsys.readouterr().out) == {"shell": shell, "script": SCRIPTS[shell]}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_accepts_its_script(shell: Shell, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    script = tmp_path / "script"
    script.write_text(SCRIPTS[shell], encoding="utf-8")
    done = subprocess.run([shell, "-n", str(script)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# Each asks for the same in its own way; a word with a space stays one.
LINE = 'ld-deploy bench "a b.onnx" --batch'
ASK = {
    "bash": f'COMP_WORDS=({LINE}); COMP_CWORD=3; _ld_deploy; printf "%s\\n" "${{COMPREPLY[@]}}"',
    "zsh": f'_describe() {{ print -l -- "${{(@P)2%%:*}}" }}; words=({LINE}); CURRENT=4; _ld_deploy',
    "fish": f"complete -C '{LINE}' | cut -f 1",
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_through_the_shell(shell: Shell, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    command = tmp_path / "ld-deploy"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ld_runtime.cli "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    script = f"export PATH={tmp_path}:$PATH\n{SCRIPTS[shell]}\n{ASK[shell]}\n"
    if shell == "fish":
        script = script.replace("export PATH=", "set -x PATH ", 1).replace(":$PATH", " $PATH", 1)
    done = subprocess.run([shell, "-c", script], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("--batch-sizes\n", "")
