"""`ld-deploy doctor`: what is installed here, and what is missing for which command."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import typer

from ld_runtime.screen import JsonOption, Screen

# Distributions that count as one thing, the first that is found; what brings it; what it gives.
_PARTS = (
    ("OpenCV", ("opencv-python-headless", "opencv-python"), "opencv-python-headless", "reading and resizing images"),
    ("ONNX Runtime", ("onnxruntime-gpu", "onnxruntime"), "ld-deploy[onnxruntime]", "running .onnx files"),
    ("OpenVINO", ("openvino",), "ld-deploy[openvino]", "bf16 and int8 on Intel and AMD processors"),
    ("TensorRT", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), "tensorrt", "engines for the GPU at hand"),
    ("TensorRT-RTX", ("tensorrt-rtx",), "ld-deploy[tensorrt-rtx]", "engines for GeForce RTX, built without one"),
    ("CUDA for engines", ("cuda-bindings",), "ld-deploy[gpu]", "running engines"),
    ("GPU clocks", ("nvidia-ml-py",), "ld-deploy[gpu]", "telling whether a GPU's clock held in bench"),
    ("PyAV", ("av",), "ld-deploy[video]", "video files and cameras"),
    ("supervision", ("supervision",), "ld-deploy[draw]", "images and videos with the boxes drawn"),
    ("trackers", ("trackers",), "ld-deploy[track]", "the same id for an object over a video"),
    ("pygame", ("pygame-ce",), "ld-deploy[window]", "a live window"),
    ("pycocotools", ("pycocotools",), "ld-deploy[coco]", "AP: verify, eval, nms-report"),
    ("ONNX", ("onnx",), "ld-deploy[export]", "export, build, convert"),
    ("torch", ("torch",), "ld-deploy[train]", "train, eval, publish, export, verify, demo"),
    ("mmdet", ("mmdet",), "ld-deploy[train]", "train, eval, publish, export, verify, demo"),
)
# What `make browser` looks for and installs.
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")  # as Linux names them


def doctor(*, as_json: JsonOption = False) -> None:
    """What is installed here, and what each missing piece would give. Imports neither torch nor mmdet.

    Exit status 1 when something that is installed does not work.

    For example:

        ld-deploy doctor
        ld-deploy doctor --json
    """
    from rich.markup import escape
    from rich.table import Table

    from ld_runtime.bench_report import machine

    screen = Screen(as_json=as_json)
    where = machine()
    features = _processor_features()
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    table = Table(
        title=f"ld-deploy {version('ld-deploy')} on Python {platform.python_version()}, {platform.platform()}"
    )
    for heading in ("part", "installed", "gives", "what brings it"):
        table.add_column(heading, overflow="fold")
    parts = _parts()
    for part in parts:
        row = part["part"], part["installed"] or "[yellow]missing[/]", part["gives"], escape(part["command"] or "")
        table.add_row(*row)
    screen.console.print(table)
    broken, remarks = _broken(), _remarks()
    for line in (
        f"{where['cpu']}, {os.cpu_count()} cores, {', '.join(features) or 'features not known'}; "
        f"{', '.join(where['gpus']) or 'no NVIDIA GPU'}; {free_gb:.0f} GB free",
        *remarks,
        *(f"broken: {line}" for line in broken),
    ):
        screen.console.print(line, markup=False, highlight=False, soft_wrap=True)
    screen.result(
        {
            "machine": where,
            "processor_features": features,
            "free_gb": round(free_gb, 1),
            "parts": parts,
            "remarks": remarks,
            "broken": broken,
        }
    )
    if broken:
        raise typer.Exit(1)


def _parts() -> list[dict[str, str | None]]:
    """Each with what is installed of it, what it gives, and the command that brings what is missing."""
    found = [
        (part, _installed(names), gives, f"pip install {_quoted(source)}") for part, names, source, gives in _PARTS
    ]
    ours = "NMS, deformable convolution, focal loss, RoIAlign and rotated IoU"
    gives = f"mmcv's other operators, for models of your own: {ours} are here without it"
    command = "pip uninstall mmcv-lite; pip install openmim; mim install mmcv==2.1.0 (with a torch that it supports)"
    found.append(("compiled mmcv", _compiled_mmcv(), gives, command))
    found.append(("Chromium", _browser(), "in a checkout: tests that open pages", "make browser"))
    return [
        {"part": part, "installed": installed or None, "gives": gives, "command": None if installed else command}
        for part, installed, gives, command in found
    ]


def _quoted(source: str) -> str:
    return f"'{source}'" if "[" in source else source


def _compiled_mmcv() -> str:
    """The mmcv whose operators are compiled, found without an import: that would be torch's too."""
    spec = importlib.util.find_spec("mmcv")
    folders = (spec and spec.submodule_search_locations) or ()
    compiled = any(Path(folder, f"_ext{suffix}").is_file() for folder in folders for suffix in EXTENSION_SUFFIXES)
    return _installed(("mmcv", "onedl-mmcv")) or "mmcv" if compiled else ""


def _browser() -> str:
    """The Chromium or Chrome on PATH, or the one that `playwright install` brought."""
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return path
    places = {"Darwin": "Library/Caches", "Windows": "AppData/Local"}
    default = Path.home() / places.get(platform.system(), ".cache") / "ms-playwright"
    folder = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", default))
    return next((str(path) for path in sorted(folder.glob("chromium*-*"))), "")


def _processor_features() -> list[str]:
    """Those that make int8 and bf16 fast, where Linux tells them."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return [name for name in _FEATURES if name in flags]


def _broken() -> list[str]:
    """What is installed and cannot work, each with its way out."""
    found = []
    try:
        import cv2  # noqa: F401 - the import is the check
    except ImportError as error:
        found.append(f"cv2 cannot be imported ({error}): pip install --force-reinstall opencv-python-headless")
    if _installed(("onnxruntime-gpu", "onnxruntime")):
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            found.append(f"onnxruntime cannot be imported ({error}): pip install --force-reinstall onnxruntime")
    setuptools = _installed(("setuptools",)).partition(" ")[2]
    if _installed(("mmengine",)) and setuptools and int(setuptools.split(".")[0]) >= 82:
        found.append(
            f"mmengine needs pkg_resources, which setuptools {setuptools} has not: pip install 'setuptools<82'"
        )
    return found


def _installed(names: tuple[str, ...]) -> str:
    """Name and version of the first distribution that is installed, or nothing."""
    for name in names:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ""


def _remarks() -> list[str]:
    """What a version number does not say."""
    remarks = []
    windowed = [name for name in packages_distributions().get("cv2", []) if "headless" not in name]
    try:
        import cv2

        remarks.append(f"cv2 {cv2.__version__} works")
    except ImportError:
        pass  # told as broken
    if windowed:
        remarks.append(
            f"{', '.join(windowed)} also provides cv2 and needs libGL on a server: "
            "pip install --force-reinstall --no-deps opencv-python-headless makes the headless one win"
        )
    remarks.append(_native_remark())
    remarks.append(_plugin_remark())
    try:
        import onnxruntime

        remarks.append(f"ONNX Runtime providers: {', '.join(onnxruntime.get_available_providers())}")
    except ImportError:
        pass  # told as missing or broken
    return remarks


def _plugin_remark() -> str:
    from ld_runtime.tensorrt_library import built_plugins

    found = ", ".join(path.name for path in built_plugins())
    return f"TensorRT plugin: {found or 'not built (make plugin TENSORRT_INCLUDE=...), engines take the NMS as a loop'}"


def _native_remark() -> str:
    from ld_runtime import native
    from ld_runtime.errors import BackendMissingError

    try:
        native.load_library()
    except BackendMissingError as error:
        return f"NMS and GFL decode run in numpy or in the graph, which is slower: {error}"
    return f"NMS and GFL decode run in C++: {native.library_path()}"
