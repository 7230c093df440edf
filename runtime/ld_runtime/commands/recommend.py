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
    from collections.abc import Callable, Mapping, Sequence

    from rich.table import Table

    from ld_runtime.bench import Latency
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.missing_files import MadeFiles, MakeSettings
    from ld_runtime.paired_ap import Difference
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
    difference: Difference | None


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
    build: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Make what is missing, into this folder: INT8, on a GPU engines. What is there is used again.",
            rich_help_panel="Making files",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Folder or glob of training images for INT8; with --build.", rich_help_panel="Making files"),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Quality and latency of your files on all that can run them here, and which to take.

    Prints the points that no other beats, each with its command and its line of Python; what could not be tried, and
    what would make it possible. Latency is from file to detections, one image at a time; latencies that differ by less
    than the run's own spread (p90 - median) count as equal. Without a budget the fastest is taken that loses at most
    one point of AP (or agreement) against the best. AP has its difference to the first file beside it, with the
    interval that 95 % of resampled image sets give: where that holds 0, these images cannot tell the two apart.

    For example:

        ld-deploy recommend student.onnx student.int8.onnx --images images/
        ld-deploy recommend student.onnx --images images/ --max-latency-ms 20
        ld-deploy recommend a.onnx --images val/ --build . --calibration train/
    """
    from ld_runtime.bench_report import list_sha256, machine
    from ld_runtime.engines import ModelSpec
    from ld_runtime.errors import ConfigError, EngineError
    from ld_runtime.files import check_writable, write_text
    from ld_runtime.media import list_images
    from ld_runtime.missing_files import MadeFiles, MakeSettings
    from ld_runtime.pareto import front, take
    from ld_runtime.quality import Agreement, GroundTruth
    from ld_runtime.recommendation import advice, command_of, discover, python_of

    if min_ap is not None and annotations is None:
        raise ConfigError("--min-ap needs the ground truth that AP is measured by: add --annotations FILE")
    if output:
        check_writable(output)
    if calibration is not None and build is None:
        raise ConfigError("--calibration is for the INT8 file that --build FOLDER makes: give that too")
    screen = Screen(as_json=as_json)
    measure: Yardstick = GroundTruth(annotations, Path(images)) if annotations else Agreement(list_images(images))
    given = [ModelSpec.parse(text) for text in models]
    made = MadeFiles()
    if build is not None:
        made = _make(screen, given, MakeSettings(folder=build, device=target, calibration=calibration))
    specs, impossible = discover([*given, *made.specs], device=target, suggest=build is None)
    with screen.console.status("opening") as status:
        points, failed = _measure(specs, measure, device=target, seconds=seconds, progress=status.update)
    not_tried = [*failed, *impossible, *made.not_made]
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
        "made": [{"model": str(one.path), "reused": str(one.path) in made.reused} for one in made.specs],
        "not_tried": [asdict(one) for one in not_tried],
        "take": taken.name if taken else None,
        "advice": sentence,
    }
    if output:
        write_text(output, json.dumps(content, indent=1))

    _say_result(screen, points, best=best, not_tried=not_tried, word=measure.word, content=content)
    screen.result(content)


def _say_result(
    screen: Screen,
    points: Sequence[_Point],
    *,
    best: Sequence[Choice],
    not_tried: Sequence[NotTried],
    word: str,
    content: Mapping[str, Any],
) -> None:
    from rich.markup import escape

    def say(text: str) -> None:
        screen.console.print(text, highlight=False, soft_wrap=True)

    choices = [one.choice for one in points]
    screen.console.print(_table(points, word))
    if noise := [f"{one.name} {one.spread_ms:.1f} ms" for one in choices if one.spread_ms > NOISE * one.latency_ms]:
        say(f"Noisy: latencies count as equal up to their spread, which is large here ({escape(', '.join(noise))}).")
        say("Run it again on an idle machine before you trust the front.")
    if any(one.difference for one in points):
        of = f"AP points more than {escape(choices[0].name)}"
        say(f"To the first: {of}; below, what 95 % of resampled image sets give.")
    if word != "AP":
        of = f"its own and those of {choices[0].name}"
        say(f"Agreement: share of boxes, {escape(of)}, with a partner (class, IoU 0.5), scores from 0.3.")
    by_name = {one["name"]: one for one in content["points"]}
    for choice in best:
        point = by_name[choice.name]
        say(f"\n[bold]{escape(choice.name)}[/]\n  {escape(point['command'])}\n  {escape(point['python'])}")
    if not_tried:
        say("\nNot tried:")
    for missing in not_tried:
        say(f"  {escape(str(missing))}")
    say(f"\n[bold]{escape(content['advice'])}[/]")


def _make(screen: Screen, given: Sequence[ModelSpec], settings: MakeSettings) -> MadeFiles:
    """Raises ConfigError where two files have one name, and BackendMissingError where nothing can make files."""
    from ld_runtime.errors import ConfigError
    from ld_runtime.missing_files import find_maker

    stems = Counter(path.stem for path in {one.path for one in given} if path.suffix.lower() == ".onnx")
    if twice := [stem for stem, count in stems.items() if count > 1]:
        message = f"two files are called {twice[0]}.onnx, and what is made of them would have one name"
        raise ConfigError(f"{message}: give them in separate calls, or rename one")
    make = find_maker()
    settings.folder.mkdir(parents=True, exist_ok=True)

    def say(line: str) -> None:
        screen.console.print(line, markup=False, highlight=False, soft_wrap=True)

    with screen.captured():
        made = make(given, settings=settings, say=say)
    for name in made.reused:
        say(f"{name} is there already, made of the same")
    return made


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
    qualities: list[tuple[float, Difference | None]] = []
    failed: list[NotTried] = []
    for spec in specs:
        progress(f"{yardstick.word} of {spec}")
        try:
            detector = Detector(spec.path, device=device, backend=spec.backend, precision=spec.precision)
            detector(yardstick.paths[0])
        except (BackendMissingError, ConfigError, EngineError, ModelCardError) as error:
            failed.append(NotTried(str(spec), str(error)))
            continue
        quality = yardstick.of(str(spec), detector)
        qualities.append((quality, yardstick.against_first(str(spec))))
        running.append((spec, detector))
    if not running:
        return [], failed
    short = Counter(spec.name for spec, _ in running)
    names = [spec.name if short[spec.name] == 1 else str(spec) for spec, _ in running]
    runners = [DetectorRunner(one, name=name, settings={}) for (_, one), name in zip(running, names, strict=True)]
    measured = measure(runners, list(yardstick.paths), seconds=seconds, batch_sizes=(), progress=progress)
    latencies = [one.spans["end_to_end"] for one in measured]
    return [
        _Point(spec, detector, Choice(name, one.median_ms, one.p90_ms - one.median_ms, quality), one, difference)
        for (spec, detector), name, one, (quality, difference) in zip(running, names, latencies, qualities, strict=True)
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
        "ap_difference": None if point.difference is None else point.difference.ap,
        "ap_interval": None if point.difference is None else [point.difference.low, point.difference.high],
        "latency": {key: getattr(point.latency, key) for key in ("median_ms", "p90_ms", "p99_ms", "n")},
    }


def _table(points: Sequence[_Point], word: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from ld_runtime.pareto import beaten_by, faster

    choices = [one.choice for one in points]
    sure = any(one.difference for one in points)
    table = Table(title=f"{word} and latency, file to detections")
    table.add_column("file and engine", overflow="fold")
    for heading in (word, *(["to the first"] if sure else []), "median ms", "p90", "p99"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for point in sorted(points, key=lambda one: one.choice.latency_ms):
        choice, latency, other = point.choice, point.latency, beaten_by(point.choice, choices)
        times = (f"{one:.1f}" for one in (latency.median_ms, latency.p90_ms, latency.p99_ms))
        remark = "front" if other is None else "slower" if faster(other, choice) else f"less {word}"
        apart = [_apart(point.difference)] if sure else []
        style = "dim" if other else None
        table.add_row(escape(choice.name), f"{choice.shown:.3f}", *apart, *times, remark, style=style)
    return table


def _apart(one: Difference | None) -> str:
    """In AP points, the interval in a line of its own."""
    return "" if one is None else f"{100 * one.ap:+.1f}\n{100 * one.low:+.1f} to {100 * one.high:+.1f}"
