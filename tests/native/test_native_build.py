"""docs/results/native_build.json is of these sources; and where nvcc is, the kernels compile without a warning."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.machines import NATIVE

ROOT = Path(__file__).parents[2]
REPORT: dict[str, Any] = json.loads((ROOT / "docs" / "results" / "native_build.json").read_text(encoding="utf-8"))
AGAIN = "the sources changed: `make native-check HEADERS='...'` and commit docs/results/native_build.json"
ARCHITECTURES = ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
SHARED_BYTES, REGISTERS = 48 * 1024, 65536  # of a block, on every architecture


def native_check() -> Any:
    spec = importlib.util.spec_from_file_location("native_check", NATIVE / "native_check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def threads_of_kernels() -> dict[str, int]:
    """From the sources: each kernel and the threads of its blocks."""
    found = {}
    for path in sorted((NATIVE / "cuda").glob("*.cu")):
        text = path.read_text(encoding="utf-8")
        numbers = {name: int(value) for name, value in re.findall(r"constexpr int32_t (\w+) = (\d+);", text)}
        numbers["TILE"] = 64
        for threads, name in re.findall(r"__launch_bounds__\(([\w *]+)\) (\w+)\(", text):
            found[name] = math.prod(numbers[factor] for factor in threads.split(" * "))
    return found


def test_report_is_of_these_sources() -> None:
    assert REPORT["sources"] == native_check().sources(), AGAIN


def test_every_kernel_fits_every_architecture() -> None:
    assert REPORT["architectures"] == ARCHITECTURES
    assert REPORT["warnings"] == "errors"
    threads = threads_of_kernels()
    assert len(threads) == 9
    seen = set()
    for kernel in REPORT["kernels"]:
        plain = kernel["name"].split("<")[0]
        seen.add((plain, kernel["architecture"]))
        assert kernel["spilled_bytes"] == 0
        assert kernel["shared_bytes"] <= SHARED_BYTES
        assert kernel["registers"] * threads[plain] <= REGISTERS
    assert seen == {(name, architecture) for name in threads for architecture in ARCHITECTURES}


def test_plugin_is_built_and_tested_against_every_tensorrt() -> None:
    versions = [".".join(one["tensorrt"].split(".")[:2]) for one in REPORT["plugins"]]
    assert versions == ["10.13", "10.14", "10.15", "10.16", "11.0", "11.1"]
    tests = {one["tests_passed"] for one in REPORT["plugins"]}
    assert len(tests) == 1
    assert tests.pop() >= 50
    for one in REPORT["plugins"]:
        assert one["library"] == f"libld_deploy_plugin_trt{one['tensorrt'].split('.')[0]}.so"
        assert {"getCreators", "setLoggerFinder"} <= set(one["exports"])
        assert not [name for name in one["needs"] if "nvinfer" in name or "cudart" in name]
        assert one["registry"]["tests_passed"] == 5
        assert one["registry"]["of"].startswith("tensorrt_rtx ")


def test_emulated_tests_ran() -> None:
    assert REPORT["emulated_tests_passed"] >= 80


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no nvcc on this machine")
@pytest.mark.parametrize("source", sorted(path.name for path in (NATIVE / "cuda").glob("*.cu")))
def test_kernels_compile_without_a_warning(source: str, tmp_path: Path) -> None:
    flags = [
        *("-std=c++17", "-O3", "--fmad=false", "-Werror", "all-warnings", "-Xcompiler", "-fPIC,-Wall,-Wextra,-Werror"),
        *(f"-gencode=arch=compute_{number},code=sm_{number}" for number in (75, 90)),
    ]
    command = ["nvcc", *flags, "-I", NATIVE / "include", "-c", NATIVE / "cuda" / source, "-o", tmp_path / "kernels.o"]
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
