"""A run of three models, the last with an INT8 file, as a demo leaves it: verifies, a benchmark, a recommendation."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.runtime.report_cases import (
    AGREEMENT,
    DEPLOYED,
    FACTS,
    MACHINE,
    REFERENCE,
    latency,
    write_bench,
    write_images,
    write_log,
    write_parity,
)

if TYPE_CHECKING:
    from pathlib import Path

# Model: AP in PyTorch; each file: its AP and its ms.
MODELS = {
    "teacher": (0.42, {"teacher.onnx": (0.42, 8.0)}),
    "student": (0.31, {"student.onnx": (0.31, 4.0)}),
    "ld_student": (0.36, {"ld_student.onnx": (0.36, 4.5), "ld_student.int8.onnx": (0.352, 3.0)}),
}
PYTORCH_MS = 18.0  # of ld_student
ALIKE = {**AGREEMENT, "matched_share": 1.0, "max_score_difference": 1e-6, "max_box_difference_px": 0.0, "unmatched": []}
# Name, file, AP, ms, on the front.
POINTS = (
    ("ld_student.onnx@onnxruntime", "ld_student.onnx", "onnxruntime", 0.36, 4.5, False),
    ("ld_student.onnx@openvino", "ld_student.onnx", "openvino", 0.36, 3.5, True),
    ("ld_student.int8.onnx", "ld_student.int8.onnx", "openvino", 0.352, 2.0, True),
)


def sha_of(name: str) -> str:
    return name.encode().hex().ljust(64, "0")[:64]


def facts_of(name: str) -> dict[str, Any]:
    return {**FACTS, "precision": "int8" if "int8" in name else "fp32"}


def command_of(name: str) -> str:
    return f"ld-deploy detect {name} 'my images' -o detections"


def write_models(folder: Path, *, models: tuple[str, ...] = tuple(MODELS)) -> Path:
    """Makes a run of some of the models; gives its folder."""
    images = write_images(folder / "images")
    measurements: list[dict[str, Any]] = []
    for model in models:
        reference_ap, files = MODELS[model]
        write_parity(
            folder / "verify" / f"{model}.json",
            images=images,
            checkpoint=sha_of(model),
            reference_ap=reference_ap,
            files={
                name: (
                    ap,
                    AGREEMENT if "int8" in name else ALIKE,
                    {"sha256": sha_of(name), **facts_of(name)},
                    DEPLOYED if "int8" in name else REFERENCE,
                )
                for name, (ap, _) in files.items()
            },
        )
        measurements += [
            {
                "name": name.removesuffix(".onnx"),
                "settings": {"model": name, "model_sha256": sha_of(name), **facts_of(name)},
                "spans": {"end_to_end": latency(ms)},
                "fps": 1000 / ms,
            }
            for name, (_, ms) in files.items()
        ]
        write_log(folder / model)
    if "ld_student" in models:
        torch = {"precision": "fp32", "checkpoint_sha256": sha_of("ld_student")}
        for name, ms in (("PyTorch", PYTORCH_MS), ("mmdet inference_detector", 20.0)):
            spans = {"end_to_end": latency(ms)}
            measurements.append({"name": name, "settings": torch, "spans": spans, "fps": 1000 / ms})
    write_bench(folder / "bench.json", measurements)
    return folder


def write_recommendation(path: Path, *, word: str = "ap") -> None:
    content = {
        "schema_version": 1,
        "kind": "recommend",
        "machine": MACHINE,
        "target": "cpu",
        "images": {"count": 2, "sha256": "f" * 64},
        "settings": {"seconds": 5, "max_latency_ms": None, "min_ap": None},
        "points": [
            {
                "name": name,
                "model": file,
                "model_sha256": sha_of(file),
                "backend": backend,
                "precision": facts_of(file)["precision"],
                "latency": {"median_ms": ms, "p90_ms": ms + 0.5, "p99_ms": ms + 1, "n": 9},
                word: ap,
                "on_front": on_front,
                "command": command_of(name),
                "python": f"Detector({file!r})",
            }
            for name, file, backend, ap, ms, on_front in POINTS
        ],
        "not_tried": [],
        "take": "ld_student.int8.onnx",
        "advice": "take ld_student.int8.onnx: 2.2 times as fast as ld_student.onnx@onnxruntime at -0.8 AP points",
    }
    path.write_text(json.dumps(content), encoding="utf-8")
