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
from ld_export.verify import verify
from ld_runtime.bench import measure
from ld_runtime.bench_report import sha256_of, to_json_content
from ld_runtime.commands.detect import detect
from ld_runtime.detector import Detector
from ld_runtime.detector_runner import DetectorRunner
from ld_runtime.media import list_images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PRODUCT = "ld_student"  # the model that PyTorch is timed beside, and that draws
BENCH_IMAGES = 32
BATCH_SIZES = (1, 8)


def onnx_path(role: str, *, output: Path) -> Path:
    """Of the deployed file of a role."""
    return output / f"{role}.onnx"


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
            models=[onnx_path(role, output=output)],
            with_mmdet=role == PRODUCT,
            progress=progress,
        )
        verification.write(output / "verify" / f"{role}.json")
        reports[role] = json.loads(verification.report.to_json())
    passed = sum(report["passed"] for report in reports.values())
    return Outcome(
        f"{passed} of {len(reports)} files agree", {"reports": reports}, tuple(f"verify/{role}.json" for role in roles)
    )


def bench_models(output: Path, roles: Sequence[str], *, seconds: float, say: Callable[[str], None]) -> Outcome:
    """Each file, and the product in PyTorch and in mmdet's `inference_detector`, on test images."""
    images = list_images(str(output / "data" / "test"))[:BENCH_IMAGES]
    runners: list[Any] = []
    for role in roles:
        path = onnx_path(role, output=output)
        detector = Detector(path)
        facts: dict[str, str | int | float] = {
            "model": path.name,
            "model_sha256": sha256_of(path),
            **asdict(detector.engine.facts),
            "score_threshold": detector.score_threshold,
        }
        runners.append(DetectorRunner(detector, name=role, settings=facts))
    runners += reference_runners(checkpoint_path(PRODUCT, output=output), "cpu")
    measurements = measure(runners, images, seconds=seconds, batch_sizes=BATCH_SIZES, progress=say)
    settings = {"device": "cpu", "seconds": seconds, "batch_sizes": BATCH_SIZES}
    content = json.loads(json.dumps(to_json_content(measurements, images=images, settings=settings)))
    fps = {one["name"]: one["fps"] for one in content["measurements"]}
    return Outcome(f"{PRODUCT}: {fps[PRODUCT]:.0f} fps in ONNX, {fps['PyTorch']:.0f} in PyTorch", content)


def detect_images(output: Path, *, say: Callable[[str], None]) -> Outcome:
    """The product on every test image: annotated images and a COCO JSON in `output`/detections."""
    folder = output / "detections"
    shutil.rmtree(folder, ignore_errors=True)
    say("test images")
    detect(str(onnx_path(PRODUCT, output=output)), str(output / "data" / "test"), output=folder, batch_size=8)
    found = json.loads((folder / "detections.json").read_text(encoding="utf-8"))
    counts = {"images": len(found["images"]), "detections": len(found["annotations"])}
    summary = f"{counts['detections']} boxes in {counts['images']} images"
    return Outcome(summary, counts, ("detections/detections.json", "detections/annotated"))
