"""The demo's second half: each trained model as a file, proved, timed and used."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_deploy.bench_reference import reference_runners
from ld_deploy.demo.stages import Outcome
from ld_deploy.demo.training import checkpoint_path, config_path
from ld_export.from_checkpoint import export_checkpoint
from ld_export.quantize import evenly, quantize
from ld_export.quantize_images import choose_images
from ld_export.verify import verify
from ld_runtime.bench import measure
from ld_runtime.bench_report import sha256_of, to_json_content
from ld_runtime.commands.detect import detect
from ld_runtime.detector import Detector
from ld_runtime.detector_runner import DetectorRunner
from ld_runtime.media import list_images
from ld_runtime.onnx_file import read_card, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PRODUCT = "ld_student"  # the model that PyTorch is timed beside, and that draws
BENCH_IMAGES = 32
BATCH_SIZES = (1, 8)
CALIBRATION_IMAGES = 128


def onnx_path(role: str, *, output: Path) -> Path:
    """Of the deployed file of a role."""
    return output / f"{role}.onnx"


def files_of(role: str, *, output: Path) -> list[Path]:
    """Of a role: its float file, and the quantized one of the product."""
    return [onnx_path(role, output=output), *([int8_path(output=output)] if role == PRODUCT else [])]


def export_models(output: Path, roles: Sequence[str], *, say: Callable[[str], None]) -> Outcome:
    """Exports each role's first seed; the content has the size and hash of each file."""
    content: dict[str, dict[str, Any]] = {}
    for role in roles:
        path = onnx_path(role, output=output)
        say(role)
        export_checkpoint(
            config_path(role, output=output),
            checkpoint=checkpoint_path(role, output=output),
            output=path,
            progress=lambda line, role=role: say(f"{role}: {line}"),  # type: ignore[misc] # mypy and default arguments
        )
        content[role] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    mib = content[PRODUCT]["bytes"] / 2**20
    return Outcome(f"{PRODUCT}.onnx {mib:.1f} MiB", content, tuple(f"{role}.onnx" for role in roles))


def int8_path(*, output: Path) -> Path:
    """Of the quantized file of the product."""
    return output / f"{PRODUCT}.int8.onnx"


def quantize_product(output: Path, *, say: Callable[[str], None]) -> Outcome:
    """The product in INT8, calibrated on training images, its method chosen by AP on val; the content is its report."""

    def progress(name: str, total: int) -> Callable[[], None]:
        say(f"{name} ({total})")
        return lambda: None

    source, target = onnx_path(PRODUCT, output=output), int8_path(output=output)
    config = str(config_path(PRODUCT, output=output))
    chosen = choose_images(
        images=None, annotations=None, config=config, split="val", card=read_card(read_file(source), path=source)
    )
    report = quantize(
        source,
        output=target,
        calibration=evenly(chosen.calibration, CALIBRATION_IMAGES),
        labelled=chosen.labelled,
        compared=chosen.compared,
        progress=progress,
    )
    smaller = source.stat().st_size / target.stat().st_size
    summary = f"{target.name}: {report.method}, {smaller:.1f} times smaller"
    return Outcome(summary, json.loads(report.to_json()), (target.name, f"{target.name}.json"))


def verify_models(output: Path, roles: Sequence[str], *, say: Callable[[str], None]) -> Outcome:
    """AP and boxes of each file against PyTorch on test; the content has the reports of `ld-deploy verify`."""
    reports = {}
    for role in roles:

        def progress(name: str, total: int, role: str = role) -> Callable[[], None]:
            say(f"{role}: {Path(name).name} on {total} images")
            return lambda: None

        verification = verify(
            config_path(role, output=output),
            checkpoint=checkpoint_path(role, output=output),
            models=files_of(role, output=output),
            with_mmdet=role == PRODUCT,
            progress=progress,
        )
        verification.write(output / "verify" / f"{role}.json")
        reports[role] = json.loads(json.dumps(verification.report.content()))
    files = sum(len(report["agreement"]) for report in reports.values())
    failed = {line.partition(":")[0] for report in reports.values() for line in report["failures"]}
    return Outcome(
        f"{files - len(failed)} of {files} files agree",
        {"reports": reports},
        tuple(f"verify/{role}.json" for role in roles),
    )


def bench_models(output: Path, roles: Sequence[str], *, seconds: float, say: Callable[[str], None]) -> Outcome:
    """Each file, and the product in PyTorch and in mmdet's `inference_detector`, on test images."""
    images = list_images(str(output / "data" / "test"))[:BENCH_IMAGES]
    runners: list[Any] = []
    for path in (path for role in roles for path in files_of(role, output=output)):
        detector = Detector(path)
        facts: dict[str, str | int | float] = {
            "model": path.name,
            "model_sha256": sha256_of(path),
            **asdict(detector.engine.facts),
            "score_threshold": detector.score_threshold,
        }
        runners.append(DetectorRunner(detector, name=path.stem, settings=facts))
    runners += reference_runners(checkpoint_path(PRODUCT, output=output), "cpu")
    measurements = measure(runners, images, seconds=seconds, batch_sizes=BATCH_SIZES, progress=say)
    settings = {"device": "cpu", "seconds": seconds, "batch_sizes": BATCH_SIZES}
    content = json.loads(json.dumps(to_json_content(measurements, images=images, settings=settings)))
    fps = {one["name"]: one["fps"] for one in content["measurements"]}
    float_fps, int8_fps, torch_fps = fps[PRODUCT], fps[int8_path(output=output).stem], fps["PyTorch"]
    rates = f"{float_fps:.0f} fps in ONNX, {int8_fps:.0f} in INT8, {torch_fps:.0f} in PyTorch"
    return Outcome(f"{PRODUCT}: {rates}", content)


def detect_images(output: Path, *, say: Callable[[str], None]) -> Outcome:
    """The product on every test image: annotated images and a COCO JSON in `output`/detections."""
    folder = output / "detections"
    shutil.rmtree(folder, ignore_errors=True)
    say("test images")
    detect(str(onnx_path(PRODUCT, output=output)), [str(output / "data" / "test")], output=folder, batch_size=8)
    found = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    counts = {"images": len(found["images"]), "detections": len(found["annotations"])}
    summary = f"{counts['detections']} boxes in {counts['images']} images"
    return Outcome(summary, counts, ("detections/detections.json", "detections/annotated"))
