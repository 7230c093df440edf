"""`ld-deploy detect`: a deployed file on images or a video, with everything that comes out of it as files."""

from __future__ import annotations

import json
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ld_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from rich.progress import Progress, TaskID

    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector

DISPLAY_SCORE_THRESHOLD = 0.3
DETECTIONS_FILE = "detections.json"
ANNOTATED_FOLDER = "annotated"


def detect(
    model: Annotated[
        str,
        typer.Argument(help="An .onnx file or engine; student.onnx@openvino:bf16 names what is to run it."),
    ],
    source: Annotated[str, typer.Argument(help="Image, folder, glob, video file, camera index, RTSP or HTTP address.")],
    *,
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for what comes out.")],
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    score_threshold: Annotated[
        float | None,
        typer.Option(help=f"Default: {DISPLAY_SCORE_THRESHOLD}, or the file's own where that is higher."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images a run takes; only those of one canvas size.")] = 1,
    images: Annotated[bool, typer.Option(help="Write annotated images or the annotated video.")] = True,
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
    if is_video(source):
        _detect_in_video(detector, source, output, with_images=images)
    else:
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


def _detect_in_video(detector: Detector, source: str, folder: Path, *, with_images: bool) -> None:
    """Raises InputError at the end when the video broke off."""
    from ld_runtime.draw import draw
    from ld_runtime.media import open_video
    from ld_runtime.video_writer import written_video

    seen: list[tuple[str, tuple[int, int]]] = []
    results: list[Detections] = []
    broken: InputError | None = None
    name = f"{Path(source).stem or 'video'}.mp4"
    _refuse_overwriting(folder / ANNOTATED_FOLDER, [Path(source)])
    with open_video(source) as video, _progress(video.frame_count) as (bar, task):
        writer = written_video(folder / ANNOTATED_FOLDER / name, fps=video.fps) if with_images else _no_video()
        with writer as write:
            try:
                for frame in video:
                    detections = detector(frame.image)
                    seen.append((f"{source}#{frame.index}", (frame.image.shape[0], frame.image.shape[1])))
                    results.append(detections)
                    if write:
                        write(draw(frame.image, detections, class_names=detector.class_names))
                    bar.advance(task)
            except KeyboardInterrupt:
                bar.console.print("stopped; keeping what was seen")
            except InputError as error:
                if not results:
                    raise
                broken = error
    _write_detections(folder, seen, results, detector)
    if broken:
        raise broken


def _refuse_overwriting(annotated: Path, sources: list[Path]) -> None:
    if annotated.resolve() in {path.parent.resolve() for path in sources}:
        raise InputError(f"the annotated files would go to {annotated}, where the sources are: choose another -o")


@contextmanager
def _no_video() -> Iterator[None]:
    yield None


def _write_detections(
    folder: Path, seen: list[tuple[str, tuple[int, int]]], results: list[Detections], detector: Detector
) -> None:
    from rich.console import Console

    from ld_runtime.coco import coco_document
    from ld_runtime.files import write_text

    document = coco_document(seen, results, class_names=detector.class_names)
    write_text(folder / DETECTIONS_FILE, json.dumps(document))
    count = len(document["annotations"])
    Console().print(
        f"{count} detections in {len(seen)} images above {detector.score_threshold:g} -> {folder / DETECTIONS_FILE}",
        markup=False,
        soft_wrap=True,
    )


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
