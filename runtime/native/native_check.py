"""Builds all native code for every architecture and TensorRT, runs its tests, and writes down what came of it.

    python runtime/native/native_check.py --headers trt-10.13/include trt-11.1/include -o docs/results/native_build.json

Each folder of --headers is that of NvInfer.h in one version, as `git clone --depth 1 --branch v11.1
https://github.com/NVIDIA/TensorRT` has it. Warnings are errors. No GPU and no TensorRT is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NATIVE = Path(__file__).parent
ROOT = NATIVE.parents[1]
KERNEL_TESTS = ("nms", "gfl", "rotated")
PTXAS = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'"
    r".*?(?P<spilled>\d+) bytes spill stores.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)


def sources() -> dict[str, str]:
    """sha256 of each file that the kernels and the plugin are made of."""
    files = [path for folder in ("include", "cuda", "tensorrt") for path in sorted((NATIVE / folder).iterdir())]
    used = [NATIVE / "CMakeLists.txt", *(path for path in files if path.name != "ld_host.h")]
    return {str(path.relative_to(ROOT)): hashlib.sha256(path.read_bytes()).hexdigest() for path in used}


def output_of(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """What a command printed; it must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env=os.environ | (env or {}),
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return done.stdout


def build(folder: Path, **options: str) -> str:
    """Configures and builds into the folder; the compilers' output."""
    settings = {"WARNINGS_AS_ERRORS": "ON", "HOST": "ON", "CUDA": "ON"} | options
    output_of("cmake", "-S", NATIVE, "-B", folder, *(f"-DLD_DEPLOY_{key}={value}" for key, value in settings.items()))
    return output_of("cmake", "--build", folder)


def kernels(log: str) -> list[dict[str, Any]]:
    """What ptxas says of each kernel on each architecture."""
    found = []
    for one in PTXAS.finditer(log):
        plain = output_of("c++filt", one["name"])
        name = re.search(r"(\w+(?:<[\w, ]+>)?)\(", re.sub(r"\(anonymous namespace\)::|ld::|void ", "", plain))
        shared = re.search(r"(\d+) bytes smem", one["rest"])
        found.append(
            {
                "name": name[1] if name else plain.strip(),
                "architecture": one["architecture"],
                "registers": int(one["registers"]),
                "shared_bytes": int(shared[1]) if shared else 0,
                "spilled_bytes": int(one["spilled"]),
            }
        )
    return sorted(found, key=lambda one: (one["name"], int(one["architecture"][3:])))


def passed_tests(*paths: str, env: dict[str, str] | None = None) -> int:
    """How many tests ran; each must pass and none may be skipped."""
    log = output_of(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *paths, env=env)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|failed|error)", log)}
    if set(counts) != {"passed"}:
        sys.exit(f"{log}\nevery test must pass, got {counts}")
    return counts["passed"]


def plugin(headers: Path, folder: Path) -> dict[str, Any]:
    """One version of TensorRT: the library is built and tested."""
    text = (headers / "NvInferVersion.h").read_text(encoding="utf-8")
    numbers = (re.search(rf"define (?:TRT|NV_TENSORRT)_{part}\w* +(\d+)", text) for part in ("MAJOR", "MINOR", "PATCH"))
    version = ".".join(one[1] for one in numbers if one)
    build(folder, TENSORRT="ON", TENSORRT_INCLUDE=str(headers.resolve()))
    library = folder / "tensorrt" / f"libld_deploy_plugin_trt{version.split('.')[0]}.so"
    symbols = re.findall(r" T (\w+)", output_of("nm", "-D", "--defined-only", library))
    needed = re.findall(r"NEEDED +(\S+)", output_of("objdump", "-p", library))
    env = {"TENSORRT_INCLUDE": str(headers.resolve()), "LD_DEPLOY_PLUGIN": str(library)}
    tests = passed_tests("tests/native/test_plugin.py", env=env)
    registry = passed_tests("tests/native/test_plugin.py", "-k", "registry or parser", env=env)
    return {
        "tensorrt": version,
        "library": library.name,
        "exports": sorted(symbols),
        "needs": sorted(needed),
        "tests_passed": tests,
        "registry": {"of": f"tensorrt_rtx {rtx_version()}", "tests_passed": registry},
    }


def rtx_version() -> str:
    """Of the package whose registry and parser the plugin is tried in."""
    return output_of(sys.executable, "-c", "import tensorrt_rtx; print(tensorrt_rtx.__version__)").strip()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--headers", type=Path, nargs="+", required=True, help="folders with NvInfer.h")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "results" / "native_build.json")
    arguments = parser.parse_args()
    for headers in arguments.headers:
        if not (headers / "NvInfer.h").is_file():
            parser.error(f"no NvInfer.h in {headers}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = kernels(build(folder))
        report = {
            "sources": sources(),
            "compilers": {
                "nvcc": output_of("nvcc", "--version").splitlines()[-2].split(",")[-1].strip(),
                "g++": output_of("g++", "--version").splitlines()[0],
                "cmake": output_of("cmake", "--version").splitlines()[0].split()[-1],
            },
            "warnings": "errors",
            "architectures": sorted({one["architecture"] for one in found}, key=lambda one: int(one[3:])),
            "kernels": found,
            "emulated_tests_passed": passed_tests(*(f"tests/gpu/test_{kind}_kernels.py" for kind in KERNEL_TESTS)),
            "plugins": [plugin(headers, folder) for headers in arguments.headers],
        }
    arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
