"""`ld-deploy bench-video`: how fast deployed files annotate a video, beside their engines alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ld_runtime.errors import BackendMissingError
from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from ld_runtime.bench_video import VideoMeasurement, VideoReference

REFERENCES_GROUP = "ld_deploy.bench_video_references"


def bench_video(
    models: Annotated[list[str], typer.Argument(help="Files, each with what is to run it: student.onnx@openvino.")],
    *,
    video: Annotated[list[Path], typer.Option(help="Video files; give the option again for more.")],
    against: Annotated[
        Path | None,
        typer.Option(
            help="A training checkpoint, or a config for random weights: the loop that mmdet's users write.",
            rich_help_panel="Against PyTorch",
        ),
    ] = None,
    frames: Annotated[
        int, typer.Option(min=1, help="Of each model and video; the video is repeated.", rich_help_panel="Measurement")
    ] = 300,
    against_frames: Annotated[
        int, typer.Option(min=1, help="Of the loop of --against.", rich_help_panel="Against PyTorch")
    ] = 50,
    rounds: Annotated[int, typer.Option(min=1, help="In which all take turns.", rich_help_panel="Measurement")] = 5,
    score_threshold: Annotated[
        float, typer.Option(help="Of what is drawn and written.", rich_help_panel="Runtime")
    ] = 0.3,
    max_detections: Annotated[
        int | None,
        typer.Option(
            min=0, help="Of a frame, the best; random weights would find 100 everywhere.", rich_help_panel="Runtime"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel="Runtime")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a run; default every core.", rich_help_panel="Runtime")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="JSON file.")] = Path("bench_video.json"),
    as_json: JsonOption = False,
) -> None:
    """How fast deployed files annotate a video, from the file to the annotated mp4.

    `engine` is the engine alone on the canvases of the same frames, `fps` the whole way with reading, drawing and
    encoding beside it; their ratio says what the video costs. Where the model is small, the video's own work is most of
    it, and the ratio is low whatever is done.

    For example:

        ld-deploy bench-video student.onnx --video clip.mp4
    """
    from ld_runtime.bench_report import machine, sha256_of
    from ld_runtime.bench_video import measure_video
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.files import check_writable, write_text
    from ld_runtime.video_writer import ENCODER

    screen = Screen(as_json=as_json)
    check_writable(output)
    prepared = []
    for spec in map(ModelSpec.parse, models):
        detector = Detector(
            spec.path,
            device=device,
            backend=spec.backend,
            precision=spec.precision,
            threads=threads,
            max_detections=max_detections,
        )
        detector.score_threshold = max(score_threshold, detector.score_threshold)
        facts: dict[str, str | int | float] = {
            "model": str(spec.path),
            "model_sha256": sha256_of(spec.path),
            **asdict(detector.engine.facts),
            "score_threshold": detector.score_threshold,
            "max_detections": detector.max_detections,
        }
        prepared.append((spec.name, detector, facts))
    references = (
        []
        if against is None
        else _references(against, device, score_threshold=score_threshold, max_detections=max_detections)
    )
    results = []
    with screen.console.status("benchmark") as status:
        for one in video:
            measured = measure_video(
                prepared,
                one,
                frames=frames,
                rounds=rounds,
                references=references,
                reference_frames=against_frames,
                progress=status.update,
            )
            results.append({"video": one.name, "sha256": sha256_of(one), "measurements": list(map(asdict, measured))})
            screen.console.print(_table(one.name, measured))
    content: dict[str, Any] = {
        "schema_version": 1,
        "machine": machine(),
        "settings": {
            "device": device,
            "threads": threads,
            "frames": frames,
            "rounds": rounds,
            "encoder": ENCODER,
        },
        "videos": results,
    }
    write_text(output, json.dumps(content, indent=1))
    screen.console.print(f"-> {output}", markup=False, soft_wrap=True)
    screen.result(content)


def _references(
    checkpoint: Path, device: str, *, score_threshold: float, max_detections: int | None
) -> list[VideoReference]:
    """The published loops that are installed, which draw what the models draw.

    Raises:
        BackendMissingError: None is.
    """
    entries = entry_points(group=REFERENCES_GROUP)
    needed = "--against needs the training side"
    if not entries:
        raise BackendMissingError(f"{needed}: pip install 'ld-deploy[train]'")
    try:
        loads = [entry.load() for entry in entries]
    except ImportError as error:
        raise BackendMissingError(f"{needed}, and {error.name} is missing: pip install 'ld-deploy[train]'") from error
    return [load(checkpoint, device, score_threshold=score_threshold, max_detections=max_detections) for load in loads]


def _table(title: str, measured: Sequence[VideoMeasurement]) -> Table:
    from rich.table import Table

    found = Table(title=title)
    found.add_column("runner", overflow="fold")
    for heading in ("fps", "engine fps", "ratio", "of all cores", "detections", "MB at end", "MB / 1000 frames"):
        found.add_column(heading, justify="right")
    for one in measured:
        found.add_row(
            one.name,
            f"{one.fps:.1f}",
            "-" if one.engine_fps is None else f"{one.engine_fps:.1f}",
            "-" if one.ratio is None else f"{one.ratio:.3f}",
            f"{one.cpu_share:.0%}",
            f"{one.mean_detections:.1f}",
            "-" if one.memory is None else f"{one.memory.last_mb:.0f}",
            "-" if one.memory is None else f"{one.memory.slope_mb_per_1000_frames:+.2f}",
        )
    return found
