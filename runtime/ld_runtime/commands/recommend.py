"""`ld-deploy recommend`: which file and engine to take, by AP and latency on your images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ld_runtime.screen import JsonOption, Screen


def recommend(
    models: Annotated[list[str], typer.Argument(help="Files, as for bench: student.onnx, student.onnx@openvino, ...")],
    *,
    annotations: Annotated[Path, typer.Option(help="COCO file of the labelled images.")],
    images: Annotated[Path, typer.Option(help="Folder that its file names are in.")],
    seconds: Annotated[float, typer.Option(min=0.1, help="Of each model for the latency.")] = 5,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """AP and latency of each model on your images, and those that no other beats.

    Latencies that differ by less than the run's own spread (p90 - median) count as equal.
    """
    import json

    from ld_runtime.bench import measure
    from ld_runtime.bench_report import sha256_of
    from ld_runtime.coco import evaluate_boxes
    from ld_runtime.detector import Detector
    from ld_runtime.detector_runner import DetectorRunner
    from ld_runtime.engines import ModelSpec
    from ld_runtime.errors import DataError
    from ld_runtime.pareto import Choice, front

    try:
        truth = json.loads(annotations.read_text(encoding="utf-8"))
        paths = {one["id"]: images / one["file_name"] for one in truth["images"]}
        ids = {one["name"]: one["id"] for one in truth["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{annotations} is no COCO file of labelled images ({error!r})") from error
    screen = Screen(as_json=as_json)
    specs = [ModelSpec.parse(text) for text in models]
    detectors = [Detector(one.path, device=device, backend=one.backend, precision=one.precision) for one in specs]
    aps = []
    for spec, detector in zip(specs, detectors, strict=True):
        if missing := set(detector.class_names) - set(ids):
            raise DataError(
                f"{annotations} has no category {sorted(missing)}, which {spec} detects; it has {sorted(ids)}"
            )
        categories = [ids[name] for name in detector.class_names]
        found = zip(paths, detector.predict(paths.values()), strict=True)
        rows = [row for image_id, one in found for row in one.to_coco(image_id=image_id, category_ids=categories)]
        aps.append(evaluate_boxes(truth, rows).ap or 0.0)
    runners = [DetectorRunner(one, name=str(spec), settings={}) for spec, one in zip(specs, detectors, strict=True)]
    spans = [one.spans["end_to_end"] for one in measure(runners, list(paths.values()), seconds=seconds, batch_sizes=())]
    choices = [
        Choice(str(spec), span.median_ms, span.p90_ms - span.median_ms, ap)
        for spec, span, ap in zip(specs, spans, aps, strict=True)
    ]
    best = front(choices)
    points = []
    for spec, detector, one in zip(specs, detectors, choices, strict=True):
        facts = detector.engine.facts
        points.append(
            {
                "model": str(spec.path),
                "model_sha256": sha256_of(spec.path),
                "backend": facts.backend,
                "precision": facts.precision,
                "ap": one.ap,
                "latency_ms": one.latency_ms,
                "spread_ms": one.spread_ms,
                "on_front": one in best,
                "command": f"ld-deploy detect {one.name} {images} --device {device} -o detections",
            }
        )
        line = f"AP {one.ap:.3f}, {one.latency_ms:.1f} ms (+{one.spread_ms:.1f} at p90): {points[-1]['command']}"
        screen.console.print(line if one in best else f"beaten: {line}", markup=False, highlight=False, soft_wrap=True)
    screen.result({"points": points})
