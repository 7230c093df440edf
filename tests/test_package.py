"""What a wheel holds and asks for, and that the commands are where they say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from importlib.metadata import entry_points
from pathlib import Path

import cv2
import pytest

from ld_runtime import native
from ld_runtime.cli import GROUP, SUMMARIES

ROOT = Path(__file__).parents[1]


COMPILER = next(filter(shutil.which, ("c++", "g++", "clang++")), None)


def build_wheel(folder: Path, *, compiler: str | None) -> zipfile.ZipFile:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "CXX": compiler or "no-compiler"})
    (path,) = folder.glob("ld_deploy-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build_wheel(tmp_path_factory.mktemp("wheel"), compiler=COMPILER)


def test_wheel_holds_the_three_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"ld_deploy", "ld_export", "ld_runtime"}
    assert {f"{top}/py.typed" for top in tops} <= set(names)
    sources = {
        "ld_deploy": ROOT / "ld_deploy",
        "ld_export": ROOT / "export" / "ld_export",
        "ld_runtime": ROOT / "runtime" / "ld_runtime",
    }
    for top, source in sources.items():
        modules = {f"{top}/{path.relative_to(source).as_posix()}" for path in source.rglob("*.py")}
        assert modules == {name for name in names if name.startswith(f"{top}/") and name.endswith(".py")}
    assert any(name.endswith("LICENSE") for name in names)
    others = {name for name in names if ".dist-info/" not in name and not name.endswith((".py", "/py.typed"))}
    template = {f"ld_runtime/report/page.{suffix}" for suffix in ("html", "css", "js")}
    assert others - template == ({f"ld_runtime/lib/{native._NAME}"} if COMPILER else set())
    assert template <= others
    # One wheel for every Python; for this system only where the library is inside.
    assert Path(wheel.filename or "").name.endswith("-py3-none-any.whl") == (COMPILER is None)


def test_without_a_compiler_the_wheel_is_there_without_the_library(tmp_path: Path) -> None:
    found = build_wheel(tmp_path, compiler=None)
    assert Path(found.filename or "").name.endswith("-py3-none-any.whl")
    assert "ld_runtime/native.py" in found.namelist()
    assert not [name for name in found.namelist() if name.startswith("ld_runtime/lib")]


def test_plain_install_asks_for_no_torch(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = message_from_string(wheel.read(name).decode())
    plain = {line.split(">")[0].strip() for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line}
    assert plain == {"numpy", "opencv-python-headless", "rich", "typer"}
    assert metadata["Requires-Python"] == ">=3.11"


def test_every_command_has_a_summary_and_can_be_imported() -> None:
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    assert set(found) == set(SUMMARIES)
    for entry in found.values():
        assert callable(entry.load())


def test_constraints_pin_every_direct_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: deps for name, deps in project["optional-dependencies"].items() if name != "onnxruntime-gpu"}
    wanted = [*project["dependencies"], *(dep for deps in extras.values() for dep in deps)]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    names = {dep.split(">")[0].split("=")[0].split("[")[0].lower().replace("_", "-") for dep in wanted}
    assert names <= pinned


def test_opencv_is_the_headless_build() -> None:
    (gui,) = [line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")]
    assert gui.split(":")[1].strip() == "NONE"
