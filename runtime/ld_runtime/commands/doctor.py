"""`ld-deploy doctor`: what is installed here, and what is missing for which command."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, packages_distributions, version

# Distributions that count as one thing, the first that is found; the extra that brings it; the commands that need it.
_PARTS = (
    ("OpenCV", ("opencv-python-headless", "opencv-python"), None, "detect, bench"),
    ("ONNX Runtime", ("onnxruntime-gpu", "onnxruntime"), "onnxruntime", "detect, bench, verify, export"),
    ("TensorRT", ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"), None, "build for TensorRT (pip install tensorrt)"),
    ("TensorRT-RTX", ("tensorrt-rtx",), "tensorrt-rtx", "build for TensorRT-RTX"),
    ("CUDA for engines", ("cuda-bindings",), "gpu", "detect, bench and verify with engines"),
    ("GPU clocks", ("nvidia-ml-py",), "gpu", "bench on a GPU"),
    ("PyAV", ("av",), "video", "detect on video"),
    ("supervision", ("supervision",), "draw", "detect with images"),
    ("pycocotools", ("pycocotools",), "coco", "verify, eval, nms-report"),
    ("ONNX", ("onnx",), "export", "export, build"),
    ("torch", ("torch",), "train", "train, eval, publish, export, verify, demo"),
    ("mmdet", ("mmdet",), "train", "train, eval, publish, export, verify, demo"),
)


def doctor() -> None:
    """What is installed here, and what is missing for which command. Imports neither torch nor mmdet."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"ld-deploy {version('ld-deploy')} on Python {platform.python_version()}, {platform.platform()}"
    )
    for heading in ("part", "installed", "needed for", "what brings it"):
        table.add_column(heading, overflow="fold")
    for part, names, extra, commands in _PARTS:
        found = _installed(names)
        missing = "" if found else f"pip install 'ld-deploy[{extra}]'" if extra else f"pip install {names[0]}"
        table.add_row(part, found or "[yellow]missing[/]", commands, missing.replace("[", r"\["))
    console = Console()
    console.print(table)
    for line in _remarks():
        console.print(line, markup=False, highlight=False, soft_wrap=True)


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
    except ImportError as error:
        remarks.append(f"cv2 cannot be imported ({error}): pip install --force-reinstall opencv-python-headless")
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
    except ImportError as error:
        remarks.append(f"onnxruntime cannot be imported ({error})")
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
