from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def demo_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo of the smallest scale, made by the command itself in a folder of its own."""
    root = tmp_path_factory.mktemp("demo")
    output = root / "outputs" / "demo"
    command = [sys.executable, "-m", "ld_runtime.cli", "demo", "--scale", "tiny", "--output", str(output)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    (output / "screen.txt").write_text(result.stdout, encoding="utf-8")
    return output
