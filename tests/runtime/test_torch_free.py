"""The runtime imports nothing of the training side, in an interpreter where none of it can be imported."""

import pkgutil
import subprocess
import sys

import ld_runtime

PROGRAM = """
import importlib, sys
for name in ("torch", "torchvision", "mmdet", "mmcv", "mmengine", "ld_deploy", "ld_export"):
    sys.modules[name] = None
for name in sys.argv[1:]:
    importlib.import_module(name)
from ld_runtime import Detections, Detector, cluster_diou_nms
print("imported", len(sys.argv) - 1)
"""
LIGHT = """
import sys
import ld_runtime.cli
ld_runtime.cli.main(["--help"])
print(sorted({"numpy", "cv2", "onnxruntime", "typer", "supervision", "av"} & set(sys.modules)))
"""


def test_every_module_imports_without_torch() -> None:
    modules = [info.name for info in pkgutil.walk_packages(ld_runtime.__path__, "ld_runtime.")]
    assert {"ld_runtime.detector", "ld_runtime.bench", "ld_runtime.commands.detect"} <= set(modules)
    done = subprocess.run([sys.executable, "-c", PROGRAM, *modules], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"imported {len(modules)}"


def test_a_blocked_module_would_be_seen() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, "ld_deploy"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
