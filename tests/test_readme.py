"""What the README shows works: its Python runs on a demo's output, its commands and their options exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ld_runtime.cli import SUMMARIES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted({line.strip() for line in re.findall(r"^    (ld-deploy .*)$", README, flags=re.MULTILINE)})


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_runs(number: int, demo_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    root = demo_run.output.parents[1]
    cv2.imwrite(str(root / "image.jpg"), np.full((90, 120, 3), 90, np.uint8))
    monkeypatch.chdir(root)
    names: dict[str, object] = {}
    exec(compile(PYTHON[number], f"README block {number}", "exec"), names)
    assert "detections" in names


def help_of(command: str) -> str:
    arguments = [sys.executable, "-m", "ld_runtime.cli", command, "--help"]
    environment = {"COLUMNS": "200", "PATH": "", "NO_COLOR": "1", "TERM": "dumb"}
    result = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    return result.stdout


@pytest.mark.parametrize("line", COMMANDS)
def test_command_and_its_options_exist(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    assert command in SUMMARIES
    text = help_of(command)
    for option in [argument for argument in arguments if argument.startswith("-")]:
        assert re.search(rf"(?<![\w-]){re.escape(option)}\b", text), f"{command} has no {option}"
    for path in [argument for argument in arguments if argument.startswith("configs/")]:
        assert (ROOT / path).is_file()


def test_there_is_something_to_check() -> None:
    assert len(PYTHON) >= 2
    assert len(COMMANDS) >= 5


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert {"demo", "test", "plugin"} <= named
    assert named <= targets


def test_named_files_and_folders_exist() -> None:
    for name in re.findall(r"`((?:configs|runtime|export|docs|tests)/[\w./-]+)`", README):
        assert list(ROOT.glob(name)) or list(ROOT.glob(f"{name}*")), name
