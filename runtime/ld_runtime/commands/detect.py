"""`ld-deploy detect`: a deployed file on images or a video, with everything that comes out of it as files."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ld_runtime.engines import NmsPlace
from ld_runtime.errors import ConfigError, InputError
from ld_runtime.screen import JsonOption, Screen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.progress import Progress, TaskID

    from ld_runtime.detect_images import ImageSettings
    from ld_runtime.detect_video import VideoSettings
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.tiling import Tiling
    from ld_runtime.window import Window

DISPLAY_SCORE_THRESHOLD = 0.3


def detect(
    model: Annotated[
        str,
        typer.Argument(help="An .onnx file or engine; student.onnx@openvino:bf16 names what is to run it."),
    ],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="An image, a folder or a glob; or videos: files, camera indices, RTSP or HTTP addresses, all at once.",
        ),
    ],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for what comes out.")],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.", rich_help_panel="Runtime")] = "cpu",
    score_threshold: Annotated[
        float | None,
        typer.Option(help=f"Default: {DISPLAY_SCORE_THRESHOLD}, or the file's own where that is higher."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Images a run takes; only those of one canvas size.", rich_help_panel="Runtime")
    ] = 1,
    images: Annotated[bool, typer.Option(help="Write annotated images or the annotated video.")] = True,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a run; default every core.", rich_help_panel="Runtime")
    ] = None,
    nms: Annotated[
        NmsPlace | None,
        typer.Option(
            help="Where the NMS of .onnx files is computed; default: native on the CPU where it was built.",
            rich_help_panel="Runtime",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Images: threads that read and draw.", rich_help_panel="Images")
    ] = 2,
    image_memory: Annotated[
        int,
        typer.Option(
            metavar="MB", min=1, help="Images: decoded pixels held at a time; one always.", rich_help_panel="Images"
        ),
    ] = 512,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Images: throw an unfinished run in the folder away.", rich_help_panel="Images"),
    ] = False,
    tile: Annotated[
        str | None,
        typer.Option(
            metavar="PIXELS|auto",
            help="Images: look at them in tiles; auto: what the model takes unshrunk.",
            rich_help_panel="Images",
        ),
    ] = None,
    overlap: Annotated[
        float | None,
        typer.Option(
            help="Of tiles, a fraction of their side: it should hold an object; default 0.2.", rich_help_panel="Images"
        ),
    ] = None,
    largest: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Tiles: longer side of the largest object; they overlap as far as it takes to hold it.",
            rich_help_panel="Images",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Tiles: look at the whole image, shrunk, too.", rich_help_panel="Images")
    ] = False,
    every: Annotated[int, typer.Option(min=1, help="Video: 2 takes each second frame.", rich_help_panel="Video")] = 1,
    drop: Annotated[
        bool,
        typer.Option(
            "--drop", help="Video: frames that there is no time for give way to the newest.", rich_help_panel="Video"
        ),
    ] = False,
    reconnect: Annotated[
        int, typer.Option(min=0, help="Tries to open a lost network stream again, in a row.", rich_help_panel="Video")
    ] = 0,
    track: Annotated[
        bool,
        typer.Option("--track", help="Video: objects get ids, drawn and in detections.json.", rich_help_panel="Video"),
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Video: a live window; q or closing it ends the run.", rich_help_panel="Video"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a deployed file on an image, a folder, a glob or a video.

    Writes detections.json, a COCO file that describes itself, and the annotated images or the annotated mp4. What
    cannot be read is listed at the end, with exit status 2, after everything else was done. Ctrl-C ends a live stream
    and keeps what was seen. A run over images that was stopped or killed goes on when the same command is given again.

    For example:

        ld-deploy detect student.onnx images/ -o detections
        ld-deploy detect student.onnx clip.mp4 --track -o detections
    """
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.media import image_names, is_video

    screen = Screen(as_json=as_json)
    videos = all(map(is_video, sources))
    tiling = _tiling(tile, overlap, largest, whole=whole)
    names = [] if videos else image_names(sources[0])
    spec = ModelSpec.parse(model)
    detector = Detector(
        spec.path,
        device=device,
        backend=spec.backend,
        precision=spec.precision,
        nms=nms,
        threads=threads,
        score_threshold=score_threshold,
    )
    if score_threshold is None:
        detector.score_threshold = max(DISPLAY_SCORE_THRESHOLD, detector.score_threshold)
    if videos:
        if tiling is not None or restart:
            raise ConfigError("--tile and --restart are for images")
        from ld_runtime.detect_video import VideoSettings
        from ld_runtime.video_reader import ReadSettings

        read = ReadSettings(every=every, drop=drop, reconnect=reconnect)
        settings = VideoSettings(read=read, batch_size=batch_size, annotate=images, track=track)
        _detect_in_videos(screen, detector, spec, sources, output, settings=settings, show=show)
    else:
        source, *others = sources
        if others or every > 1 or drop or reconnect or track or show:
            message = f"several sources, --every, --drop, --reconnect, --track and --show are for videos, got {sources}"
            raise ConfigError(f"{message}: give images one by one, or as a folder or a glob in quotes")
        from ld_runtime.detect_images import ImageSettings

        if tiling is not None:
            _say_tiles(screen, detector, tiling)
        settings_of_images = ImageSettings(
            batch_size=batch_size,
            workers=workers,
            annotate=images,
            tiling=tiling,
            restart=restart,
            max_bytes=image_memory * 2**20,
        )
        _detect_in_images(screen, detector, spec, source, names=names, folder=output, settings=settings_of_images)


def _detect_in_images(
    screen: Screen,
    detector: Detector,
    spec: ModelSpec,
    source: str,
    *,
    names: Sequence[str],
    folder: Path,
    settings: ImageSettings,
) -> None:
    """Raises InputError at the end when some could not be read."""
    from ld_runtime.bench_report import sha256_of
    from ld_runtime.detect_images import REFUSED_FILE, detect_in_images

    with _progress(screen, len(names)) as (bar, task):
        try:
            summary = detect_in_images(
                detector,
                source,
                names,
                folder,
                model_sha256=sha256_of(spec.path),
                settings=settings,
                say=lambda text: bar.console.print(text, markup=False, soft_wrap=True),
                advance=lambda count: bar.advance(task, count),
            )
        except KeyboardInterrupt:
            bar.console.print(f"stopped; what is done is kept in {folder}, and the same command goes on", markup=False)
            raise typer.Exit(130) from None
    screen.console.print(
        f"{summary.detections} detections in {summary.images} images above {detector.score_threshold:g}"
        f" -> {summary.output}",
        f"{summary.images_per_second:.1f} images a second, from file to file",
        sep="\n",
        markup=False,
        soft_wrap=True,
    )
    screen.result({**asdict(summary), "output": str(summary.output), "folder": str(folder)})
    if summary.refused:
        total = summary.images + summary.refused
        listed = "\n  ".join(summary.reasons)
        more = summary.refused - len(summary.reasons)
        rest = f"\n  and {more} more" if more else ""
        message = f"{summary.refused} of {total} images could not be used, the others were:\n  {listed}{rest}"
        raise InputError(f"{message}\n(all reasons: {folder / REFUSED_FILE})")


def _tiling(tile: str | None, overlap: float | None, largest: int | None, *, whole: bool) -> Tiling | None:
    from ld_runtime.tiling import Tiling

    if tile is None:
        if overlap is not None or largest is not None or whole:
            raise ConfigError("--overlap, --largest and --whole are for tiles: give --tile auto or --tile PIXELS too")
        return None
    if tile != "auto" and not tile.isdecimal():
        raise ConfigError(f"--tile takes a side in pixels or auto, got {tile!r}")
    side = None if tile == "auto" else int(tile)
    return Tiling(tile=side, overlap=overlap, largest_px=largest, whole=whole)


def _say_tiles(screen: Screen, detector: Detector, tiling: Tiling) -> None:
    """Raises ConfigError when no overlap of these tiles holds the largest object."""
    from ld_runtime.tiling import tile_grid

    grid = tile_grid(detector, tiling)
    (height, width), (down, across) = grid.tile_hw, grid.overlap_hw
    shared = f"Tiles of {width}x{height} pixels that share {across}x{down}"
    lines = [f"{shared}: an object of up to {grid.held_px} pixels is whole in one of them."]
    if tiling.largest_px is None:
        lines.append("For larger ones: --largest PIXELS; for those above a tile's size a larger --tile, or --whole.")
    if tiling.tile is None:
        lines.append(
            "--tile auto shrinks nothing. Where training shrank its images, objects in tiles are larger than any that"
            " the model has seen: then give a --tile as large as training's images."
        )
    for line in lines:
        screen.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _detect_in_videos(
    screen: Screen,
    detector: Detector,
    spec: ModelSpec,
    sources: list[str],
    folder: Path,
    *,
    settings: VideoSettings,
    show: bool,
) -> None:
    """Raises InputError at the end when a video broke off."""
    from ld_runtime.bench_report import sha256_of
    from ld_runtime.detect_video import detect_in_videos

    with ExitStack() as stack:
        window = stack.enter_context(_window(spec.name)) if show else None
        bar, task = stack.enter_context(_progress(screen, None))

        def advance(total: int | None) -> None:
            bar.update(task, advance=1, total=total)

        summary = detect_in_videos(
            detector,
            sources,
            folder,
            model_sha256=sha256_of(spec.path),
            settings=settings,
            show=window.show if window else None,
            say=lambda text: bar.console.print(text, markup=False, soft_wrap=True),
            advance=advance,
        )
        if summary.stopped:
            bar.console.print("stopped; keeping what was seen")
    lines = [f"{summary.detections} detections in {summary.frames} images above {detector.score_threshold:g}"]
    for source, report in zip(sources, summary.sources, strict=True):
        if report.dropped or report.reconnects:
            lines.append(f"{source}: {report.dropped} frames dropped, {report.reconnects} times reconnected")
    screen.console.print(f"{lines[0]} -> {summary.output}", *lines[1:], sep="\n", markup=False, soft_wrap=True)
    reports = [{**asdict(each), "error": each.error and str(each.error)} for each in summary.sources]
    content = {**asdict(summary), "sources": reports, "output": str(summary.output), "folder": str(folder)}
    screen.result(content)


def _window(title: str) -> Window:
    from ld_runtime.window import Window

    return Window(title)


@contextmanager
def _progress(screen: Screen, total: int | None) -> Iterator[tuple[Progress, TaskID]]:
    """A bar with the rate of whole images: read, detected, drawn and written."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:.1f} fps")

    with Progress(
        "detect", BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn(), console=screen.console
    ) as bar:
        yield bar, bar.add_task("detect", total=total)
