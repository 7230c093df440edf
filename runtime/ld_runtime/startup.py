"""How long fresh processes take to be ready, side by side: `python -m ld_runtime.startup MODEL... -o startup.json`."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

_BARE = "import onnxruntime; onnxruntime.InferenceSession({model!r}, providers=['CPUExecutionProvider'])"
_READY = "from ld_runtime import Detector; Detector({model!r})"
_BARE_IMAGE = """
import cv2, onnxruntime
session = onnxruntime.InferenceSession({model!r}, providers=['CPUExecutionProvider'])
session.run(None, {{"images": cv2.resize(cv2.imread({image!r}), ({width}, {height}))[None]}})
"""
_FIRST_IMAGE = "from ld_runtime import Detector; Detector({model!r})({image!r})"


def programs(models: list[str], image: str) -> dict[str, list[str]]:
    """What is started, by its name: arguments of Python."""
    from ld_runtime import Detector

    found = {
        "import numpy, cv2": ["-c", "import numpy, cv2"],
        "import ld_runtime": ["-c", "import ld_runtime"],
        "all public names": ["-c", "from ld_runtime import Detections, Detector, cluster_diou_nms"],
        "ld-deploy --help": ["-m", "ld_runtime.cli", "--help"],
    }
    for model in models:
        found[f"bare session {model}"] = ["-c", _BARE.format(model=model)]
        found[f"Detector {model}"] = ["-c", _READY.format(model=model)]
        height, width = Detector(model).prepare(image).canvas.shape[:2]
        bare = _BARE_IMAGE.format(model=model, image=image, height=height, width=width)
        found[f"bare session and an image {model}"] = ["-c", bare]
        found[f"Detector and an image {model}"] = ["-c", _FIRST_IMAGE.format(model=model, image=image)]
    return found


def measure_startup(models: list[str], *, image: str, rounds: int) -> dict[str, Any]:
    """Times of fresh processes, from their start to their end, that take turns: each once a round.

    Args:
        models: `.onnx` files; a Detector is compared with ONNX Runtime's session of the same file.
        image: the first that each detects in; the bare session gets it resized to the same canvas.
        rounds: after one that is not counted, which fills the file cache.

    Raises:
        subprocess.CalledProcessError: A program failed.
    """
    from ld_runtime.bench_report import machine, sha256_of

    started = programs(models, image)
    times: dict[str, list[float]] = {name: [] for name in started}
    for turn in range(rounds + 1):
        for name, arguments in started.items():
            start = perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            if turn:
                times[name].append((perf_counter() - start) * 1000)
    medians = {name: statistics.median(values) for name, values in times.items()}
    pairs = [("import ld_runtime", "import numpy, cv2"), ("all public names", "import numpy, cv2")]
    for with_image in ("", " and an image"):
        pairs += [(f"Detector{with_image} {model}", f"bare session{with_image} {model}") for model in models]
    return {
        "schema_version": 1,
        "span": "start of the process to its end, ms",
        "machine": machine(),
        "rounds": rounds,
        "models": {model: sha256_of(Path(model)) for model in models},
        "times_ms": times,
        "median_ms": medians,
        "ratios": [{"of": of, "to": to, "ratio": medians[of] / medians[to]} for of, to in pairs],
    }


def main(arguments: list[str] | None = None) -> None:
    """Measures and writes the JSON."""
    from ld_runtime.files import write_text

    parser = argparse.ArgumentParser(prog="python -m ld_runtime.startup", description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--image", required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", default="startup.json")
    given = parser.parse_args(arguments)
    content = measure_startup(given.models, image=given.image, rounds=given.rounds)
    write_text(given.output, json.dumps(content, indent=1) + "\n")
    for one in content["ratios"]:
        sys.stdout.write(f"{one['of']} / {one['to']}: {one['ratio']:.2f}\n")


if __name__ == "__main__":
    main()
