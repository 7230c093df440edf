"""`ld-deploy detect`: a deployed file on images or a video, with everything that comes out of it as files."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ld_runtime.errors import ConfigError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from ld_runtime.detect_video import VideoSettings
    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.window import Window

DISPLAY_SCORE_THRESHOLD = 0.3
DETECTIONS_FILE = "detections.json"
ANNOTATED_FOLDER = "annotated"


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
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    score_threshold: Annotated[
        float | None,
        typer.Option(help=f"Default: {DISPLAY_SCORE_THRESHOLD}, or the file's own where that is higher."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a run takes; only those of one canvas size.")] = 1,
    images: Annotated[bool, typer.Option(help="Write annotated images or the annotated video.")] = True,
    every: Annotated[int, typer.Option(min=1, help="Video: 2 takes each second frame.")] = 1,
    drop: Annotated[
        bool, typer.Option("--drop", help="Video: frames that there is no time for give way to the newest.")
    ] = False,
    reconnect: Annotated[int, typer.Option(min=0, help="Tries to open a lost network stream again, in a row.")] = 0,
    track: Annotated[
        bool, typer.Option("--track", help="Video: objects get ids, drawn and in detections.json.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Video: a live window; q or closing it ends the run.")] = False,
) -> None:
    """Run a deployed file on an image, a folder, a glob or a video.

    Writes detections.json, a COCO file that describes itself, and the annotated images or the annotated mp4. What
    cannot be read is listed at the end, with exit status 2, after everything else was done. Ctrl-C ends a live stream
    and keeps what was seen.
    """
    from ld_runtime.detector import Detector
    from ld_runtime.engines import ModelSpec
    from ld_runtime.media import is_video, list_images

    spec = ModelSpec.parse(model)
    detector = Detector(
        spec.path,
        device=device,
        backend=spec.backend,
        precision=spec.precision,
        score_threshold=score_threshold,
    )
    if score_threshold is None:
        detector.score_threshold = max(DISPLAY_SCORE_THRESHOLD, detector.score_threshold)
    if all(map(is_video, sources)):
        from ld_runtime.detect_video import VideoSettings
        from ld_runtime.video_reader import ReadSettings

        read = ReadSettings(every=every, drop=drop, reconnect=reconnect)
        settings = VideoSettings(read=read, batch_size=batch_size, annotate=images, track=track)
        _detect_in_videos(detector, spec, sources, output, settings, show=show)
    else:
        source, *others = sources
        if others or every > 1 or drop or reconnect or track or show:
            message = f"several sources, --every, --drop, --reconnect, --track and --show are for videos, got {sources}"
            raise ConfigError(f"{message}: give images one by one, or as a folder or a glob in quotes")
        _detect_in_images(detector, list_images(source), output, batch_size=batch_size, with_images=images)


def _detect_in_images(
    detector: Detector, paths: list[Path], folder: Path, *, batch_size: int, with_images: bool
) -> None:
    """Raises InputError at the end when some could not be read."""
    from ld_runtime.draw import draw

    annotated = folder / ANNOTATED_FOLDER
    names = _output_names(paths)
    _refuse_overwriting(annotated, paths)
    seen: list[tuple[str, tuple[int, int]]] = []
    results: list[Detections] = []
    failures: list[str] = []
    with _progress(len(paths)) as (bar, task):
        todo = iter(paths)
        while chunk := list(islice(todo, 4 * batch_size)):
            readable = []
            for path in chunk:
                try:
                    prepared_image = _readable(detector, path)
                except InputError as error:
                    failures.append(str(error))
                    bar.advance(task)
                else:
                    readable.append((path, prepared_image))
            found = detector.predict((image for _, image in readable), batch_size=batch_size)
            for (path, image), detections in zip(readable, found, strict=True):
                seen.append((str(path), (image.shape[0], image.shape[1])))
                results.append(detections)
                if with_images:
                    drawn = draw(image, detections, class_names=detector.class_names)
                    _write_image(annotated / names[path], drawn)
                bar.advance(task)
    _write_detections(folder, seen, results, detector)
    if failures:
        listed = "\n  ".join(failures)
        raise InputError(f"{len(failures)} of {len(paths)} images could not be used, the others were:\n  {listed}")


def _readable(detector: Detector, path: Path) -> NDArray[Any]:
    """The decoded image, once it is sure that the model takes it: a failure later would cost its whole group."""
    from ld_runtime.preprocess import canvas_hw, decode

    image = decode(path)
    canvas_hw((image.shape[0], image.shape[1]), detector.card.preprocess)
    return image


def _detect_in_videos(
    detector: Detector, spec: ModelSpec, sources: list[str], folder: Path, settings: VideoSettings, *, show: bool
) -> None:
    """Raises InputError at the end when a video broke off."""
    from ld_runtime.bench_report import sha256_of
    from ld_runtime.detect_video import detect_in_videos

    with ExitStack() as stack:
        window = stack.enter_context(_window(spec.name)) if show else None
        bar, task = stack.enter_context(_progress(None))

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
    _say(f"{lines[0]} -> {summary.output}", *lines[1:])


def _window(title: str) -> Window:
    from ld_runtime.window import Window

    return Window(title)


def _refuse_overwriting(annotated: Path, sources: list[Path]) -> None:
    if annotated.resolve() in {path.parent.resolve() for path in sources}:
        raise InputError(f"the annotated files would go to {annotated}, where the sources are: choose another -o")


def _write_detections(
    folder: Path, seen: list[tuple[str, tuple[int, int]]], results: list[Detections], detector: Detector
) -> None:
    from ld_runtime.coco import coco_document
    from ld_runtime.files import write_text

    document = coco_document(seen, results, class_names=detector.class_names)
    write_text(folder / DETECTIONS_FILE, json.dumps(document))
    count = len(document["annotations"])
    _say(f"{count} detections in {len(seen)} images above {detector.score_threshold:g} -> {folder / DETECTIONS_FILE}")


def _say(*lines: str) -> None:
    from rich.console import Console

    Console().print(*lines, sep="\n", markup=False, soft_wrap=True)


def _write_image(path: Path, image: NDArray[Any]) -> None:
    import cv2

    from ld_runtime.files import written_whole

    ok, data = cv2.imencode(path.suffix, image)
    if not ok:
        raise InputError(f"OpenCV cannot write {path}")
    with written_whole(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _output_names(paths: list[Path]) -> dict[Path, str]:
    """A JPEG name for each image; two of one stem, from two folders of a glob, keep apart by a number."""
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for path in paths:
        name, number = f"{path.stem}.jpg", 1
        while name in taken:
            number += 1
            name = f"{path.stem}_{number}.jpg"
        taken.add(name)
        names[path] = name
    return names


@contextmanager
def _progress(total: int | None) -> Iterator[tuple[Progress, TaskID]]:
    """A bar with the rate of whole images: read, detected, drawn and written."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:.1f} fps")

    with Progress("detect", BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn()) as bar:
        yield bar, bar.add_task("detect", total=total)
