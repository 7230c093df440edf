"""`ld-deploy recommend`: which file and engine to take, by quality and latency on your images."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from ld_runtime.bench import Latency
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.pareto import Choice
    from ld_runtime.quality import Yardstick
    from ld_runtime.recommendation import NotTried

SCHEMA_VERSION = 1
NOISE = 0.25  # a spread above this share of the median is said: it hides differences that people look for


@dataclass(frozen=True, eq=False)
class _Point:
    spec: ModelSpec
    detector: Detector
    choice: Choice
    latency: Latency


def recommend(
    models: Annotated[
        list[str],
        typer.Argument(help="Files: all that can run them here is tried. student.onnx@openvino: OpenVINO alone."),
    ],
    *,
    images: Annotated[str, typer.Option(help="Folder of your images; without --annotations also a glob.")],
    target: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel="Measurement")] = "cpu",
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="COCO file of these images: AP. Without: agreement with the first file.", rich_help_panel="Measurement"
        ),
    ] = None,
    max_latency_ms: Annotated[
        float | None, typer.Option(min=0, help="Take the best within this median.", rich_help_panel="Budget")
    ] = None,
    min_ap: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Take the fastest from this AP on; needs --annotations.", rich_help_panel="Budget"
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Of each runner for the latency.", rich_help_panel="Measurement")
    ] = 5,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Quality and latency of your files on all that can run them here, and which to take.

    Prints the points that no other beats, each with its command and its line of Python; what could not be tried, and
    what would make it possible. Latency is from file to detections, one image at a time; latencies that differ by less
    than the run's own spread (p90 - median) count as equal. Without a budget the fastest is taken that loses at most
    one point of AP (or agreement) against the best.

    For example:

        ld-deploy recommend student.onnx student.int8.onnx --images images/
        ld-deploy recommend student.onnx --images images/ --max-latency-ms 20
    """
    from rich.markup import escape

    from ld_runtime.bench_report import list_sha256, machine
    from ld_runtime.engines import ModelSpec
    from ld_runtime.errors import ConfigError, EngineError
    from ld_runtime.files import check_writable, write_text
    from ld_runtime.media import list_images
    from ld_runtime.pareto import front, take
    from ld_runtime.quality import Agreement, GroundTruth
    from ld_runtime.recommendation import advice, command_of, discover, python_of

    if min_ap is not None and annotations is None:
        raise ConfigError("--min-ap needs the ground truth that AP is measured by: add --annotations FILE")
    if output:
        check_writable(output)
    screen = Screen(as_json=as_json)
    measure: Yardstick = GroundTruth(annotations, Path(images)) if annotations else Agreement(list_images(images))
    specs, impossible = discover([ModelSpec.parse(text) for text in models], device=target)
    with screen.console.status("opening") as status:
        points, failed = _measure(specs, measure, device=target, seconds=seconds, progress=status.update)
    not_tried = [*failed, *impossible]
    if not points:
        raise EngineError(f"nothing here runs on {target}: {'; '.join(map(str, not_tried))}")
    choices = [one.choice for one in points]
    best = front(choices)
    taken = take(choices, max_latency_ms=max_latency_ms, min_quality=min_ap)
    sentence = advice(taken, choices, word=measure.word, max_latency_ms=max_latency_ms, min_quality=min_ap)
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "recommend",
        "machine": machine(),
        "target": target,
        "images": {"count": len(measure.paths), "sha256": list_sha256(measure.paths)},
        "settings": {"seconds": seconds, "max_latency_ms": max_latency_ms, "min_ap": min_ap},
        "points": [
            {
                **_facts(one),
                measure.word.lower(): one.choice.quality,
                "on_front": one.choice in best,
                "command": command_of(one.spec, images, device=target),
                "python": python_of(one.spec, device=target),
            }
            for one in points
        ],
        "not_tried": [asdict(one) for one in not_tried],
        "take": taken.name if taken else None,
        "advice": sentence,
    }
    if output:
        write_text(output, json.dumps(content, indent=1))

    def say(text: str) -> None:
        screen.console.print(text, highlight=False, soft_wrap=True)

    screen.console.print(_table(choices, [one.latency for one in points], measure.word))
    if noise := [f"{one.name} {one.spread_ms:.1f} ms" for one in choices if one.spread_ms > NOISE * one.latency_ms]:
        say(f"Noisy: latencies count as equal up to their spread, which is large here ({escape(', '.join(noise))}).")
        say("Run it again on an idle machine before you trust the front.")
    if annotations is None:
        of = f"its own and those of {choices[0].name}"
        say(f"Agreement: share of boxes, {escape(of)}, with a partner (class, IoU 0.5), scores from 0.3.")
    for choice in best:
        spec = next(one.spec for one in points if one.choice is choice)
        say(f"\n[bold]{escape(choice.name)}[/]\n  {escape(command_of(spec, images, device=target))}")
        say(f"  {escape(python_of(spec, device=target))}")
    if not_tried:
        say("\nNot tried:")
    for missing in not_tried:
        say(f"  {escape(str(missing))}")
    say(f"\n[bold]{escape(sentence)}[/]")
    screen.result(content)


def _measure(
    specs: Sequence[ModelSpec], yardstick: Yardstick, *, device: str, seconds: float, progress: Callable[[str], None]
) -> tuple[list[_Point], list[NotTried]]:
    """Quality of each that can be opened and run, then the latency of all those, in turns."""
    from ld_runtime.bench import measure
    from ld_runtime.detector import Detector
    from ld_runtime.detector_runner import DetectorRunner
    from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, ModelCardError
    from ld_runtime.pareto import Choice
    from ld_runtime.recommendation import NotTried

    running: list[tuple[ModelSpec, Detector]] = []
    qualities: list[float] = []
    failed: list[NotTried] = []
    for spec in specs:
        progress(f"{yardstick.word} of {spec}")
        try:
            detector = Detector(spec.path, device=device, backend=spec.backend, precision=spec.precision)
            detector(yardstick.paths[0])
        except (BackendMissingError, ConfigError, EngineError, ModelCardError) as error:
            failed.append(NotTried(str(spec), str(error)))
            continue
        qualities.append(yardstick.of(str(spec), detector))
        running.append((spec, detector))
    if not running:
        return [], failed
    short = Counter(spec.name for spec, _ in running)
    names = [spec.name if short[spec.name] == 1 else str(spec) for spec, _ in running]
    runners = [DetectorRunner(one, name=name, settings={}) for (_, one), name in zip(running, names, strict=True)]
    measured = measure(runners, list(yardstick.paths), seconds=seconds, batch_sizes=(), progress=progress)
    latencies = [one.spans["end_to_end"] for one in measured]
    return [
        _Point(spec, detector, Choice(name, one.median_ms, one.p90_ms - one.median_ms, quality), one)
        for (spec, detector), name, one, quality in zip(running, names, latencies, qualities, strict=True)
    ], failed


def _facts(point: _Point) -> dict[str, Any]:
    from ld_runtime.bench_report import sha256_of

    facts = point.detector.engine.facts
    return {
        "name": point.choice.name,
        "model": str(point.spec.path),
        "model_sha256": sha256_of(point.spec.path),
        "backend": facts.backend,
        "backend_version": facts.version,
        "precision": facts.precision,
        "nms": facts.nms,
        "latency": {key: getattr(point.latency, key) for key in ("median_ms", "p90_ms", "p99_ms", "n")},
    }


def _table(choices: Sequence[Choice], latencies: Sequence[Latency], word: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from ld_runtime.pareto import beaten_by, faster

    table = Table(title=f"{word} and latency, file to detections")
    table.add_column("file and engine", overflow="fold")
    for heading in (word, "median ms", "p90", "p99"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for choice, latency in sorted(zip(choices, latencies, strict=True), key=lambda pair: pair[0].latency_ms):
        other = beaten_by(choice, choices)
        times = (f"{one:.1f}" for one in (latency.median_ms, latency.p90_ms, latency.p99_ms))
        remark = "front" if other is None else "slower" if faster(other, choice) else f"less {word}"
        table.add_row(escape(choice.name), f"{choice.shown:.3f}", *times, remark, style="dim" if other else None)
    return table
