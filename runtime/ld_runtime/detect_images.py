"""A model on a folder of images, with everything that comes out of it as files: what `ld-deploy detect` does.

Images are read and drawn in threads while the model runs. Neither images nor results are held: a journal beside the
output has what is done, and a run that was killed goes on from it.
"""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ld_runtime.bounded_flow import BoundedFlow, FlowLimits
from ld_runtime.coco_stream import write_coco
from ld_runtime.detection_journal import JOURNAL_FILE, DetectionJournal, JournalEntry, JournalHeader
from ld_runtime.errors import ConfigError, InputError, LdDeployError
from ld_runtime.files import check_writable, written_whole
from ld_runtime.image_header import claimed_bytes
from ld_runtime.preprocess import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector
    from ld_runtime.preprocess import Prepared
    from ld_runtime.tiling import Tiling

DETECTIONS_FILE, REFUSED_FILE = "detections.json", "refused.txt"
ANNOTATED_FOLDER = "annotated"
_TEMPORARY_PICTURE = re.compile(r"\..*\.\d+\.jpg")  # of `written_whole`


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are gone through.

    Args:
        batch_size: the most images, or tiles, that one run of the model takes.
        workers: threads that read and draw. About `4 * workers + 4 * batch_size` images are held at a time, fewer where
            they are large.
        annotate: whether annotated images are written.
        tiling: how large images are cut; None: they are resized to the model's input.
        restart: whether an unfinished run in the folder is thrown away instead of gone on with.
        max_bytes: of the pixels of images, decoded and prepared, that are held at a time. One image is always taken,
            however large it is; drawing its boxes needs a copy on top.
    """

    batch_size: int = 1
    workers: int = 2
    annotate: bool = True
    tiling: Tiling | None = None
    restart: bool = False
    max_bytes: int = 512 * 2**20

    def __post_init__(self) -> None:
        if self.max_bytes < 1:
            raise ConfigError(f"the images that are held need 1 byte or more, got {self.max_bytes}")


@dataclass(frozen=True)
class ImageSummary:
    """What came of it.

    Args:
        images: that were detected in, those of earlier, interrupted runs included.
        detections: in them.
        refused: images that could not be used.
        resumed: of `images` and `refused`, how many an interrupted run had done.
        seconds: that this run took.
        reasons: why images were refused; the first ones. All of them are in `refused.txt`.
        output: the COCO file.
    """

    images: int
    detections: int
    refused: int
    resumed: int
    seconds: float
    reasons: tuple[str, ...]
    output: Path

    @property
    def images_per_second(self) -> float:
        """Of this run, from file to file."""
        return (self.images + self.refused - self.resumed) / max(self.seconds, 1e-9)


@dataclass(frozen=True, eq=False)
class _Loaded:
    name: str
    image_hw: tuple[int, int] | None = None
    image: NDArray[np.uint8] | None = None
    prepared: Prepared | None = None
    refused: str | None = None

    @property
    def nbytes(self) -> int:
        """Of its pixels."""
        image = 0 if self.image is None else self.image.nbytes
        return image + (0 if self.prepared is None else self.prepared.canvas.nbytes)


def detect_in_images(
    detector: Detector,
    source: str,
    names: Sequence[str],
    folder: Path,
    *,
    model_sha256: str,
    settings: ImageSettings | None = None,
    say: Callable[[str], None] = lambda _: None,
    advance: Callable[[int], None] = lambda _: None,
) -> ImageSummary:
    """Detects in images; writes `detections.json` and `annotated/NAME.jpg` for each image into a folder.

    Args:
        detector: do not use it elsewhere meanwhile.
        source: what the user named.
        names: the image files of it, by `ld_runtime.media.image_names`.
        folder: for what comes out.
        model_sha256: of the model file.
        settings: how.
        say: told in a sentence that an interrupted run is gone on with.
        advance: called with the number of images that are done since the last call.

    Raises:
        ConfigError: The folder holds an unfinished run of another model, source or settings.
        InputError: The annotated images would go where the sources are.
        LdDeployError: An output cannot be written, or another run writes there. What was done is kept.
    """
    settings = settings or ImageSettings()
    annotated, output = folder / ANNOTATED_FOLDER, folder / DETECTIONS_FILE
    if settings.annotate and os.path.realpath(annotated) in set(
        map(os.path.realpath, set(map(os.path.dirname, names)))
    ):
        raise InputError(f"the annotated images would go to {annotated}, where the sources are: choose another -o")
    check_writable(output)
    started = time.perf_counter()
    header = _header(detector, source, model_sha256, settings)
    with DetectionJournal(folder / JOURNAL_FILE, header, restart=settings.restart) as journal:
        done, pictures = set(), set()
        if journal.resumed:
            for entry in journal.entries():
                done.add(entry.name)
                pictures.add(entry.picture)
            _remove_temporary(annotated)
            say(f"going on with the run in {folder}: {len(done)} images were done")
            advance(len(done))
        resumed, todo = len(done), [name for name in names if name not in done]
        del done
        pool = ThreadPoolExecutor(settings.workers, thread_name_prefix="ld_runtime image")
        try:
            write = _writer(detector, annotated if settings.annotate else None, pictures)
            chunk = 1 if settings.tiling else 4 * settings.batch_size
            flow = BoundedFlow(
                pool,
                claim=claimed_bytes,
                load=_loader(detector, settings),
                size=lambda one: one.nbytes,
                work=lambda loaded: write(_detected(detector, loaded, settings)),
                limits=FlowLimits(settings.max_bytes, ahead=2 * settings.workers, chunk=chunk),
            )
            for entry in flow.results(todo):
                journal.append(entry)
                advance(1)
        finally:
            pool.shutdown(cancel_futures=True)
        detections = write_coco(output, journal.entries, class_names=detector.class_names)
        images, reasons, refused = _write_refused(folder / REFUSED_FILE, journal)
        journal.remove()
    return ImageSummary(images, detections, refused, resumed, time.perf_counter() - started, reasons, output)


def _header(detector: Detector, source: str, model_sha256: str, settings: ImageSettings) -> JournalHeader:
    facts = asdict(detector.engine.facts)
    tiling = settings.tiling
    return JournalHeader(
        model_sha256,
        source,
        {
            **facts,
            "folder": str(Path.cwd()),  # a source may be relative
            "score_threshold": detector.score_threshold,
            "max_detections": detector.max_detections,
            "annotate": settings.annotate,
            "tile": tiling.tile if tiling else None,
            "overlap": tiling.overlap if tiling else None,
            "largest": tiling.largest_px if tiling else None,
            "whole": tiling.whole if tiling else None,
        },
    )


def _loader(detector: Detector, settings: ImageSettings) -> Callable[[str], _Loaded]:
    def load(name: str) -> _Loaded:
        try:
            image = decode(name)
            prepared = None if settings.tiling else detector.prepare(image)
        except InputError as error:
            return _Loaded(name, refused=str(error))
        needed = settings.annotate or settings.tiling is not None
        return _Loaded(name, (image.shape[0], image.shape[1]), image if needed else None, prepared)

    return load


def _detected(
    detector: Detector, loaded: list[_Loaded], settings: ImageSettings
) -> Iterator[tuple[_Loaded, Detections | None]]:
    if settings.tiling is not None:
        from ld_runtime.tiling import detect_tiled

        for one in loaded:
            if one.image is None:
                yield one, None
                continue
            try:
                found = detect_tiled(detector, one.image, tiling=settings.tiling, batch_size=settings.batch_size)
            except InputError as error:
                yield _Loaded(one.name, refused=f"{one.name}: {error}"), None
            else:
                yield one, found
        return
    prepared = [one.prepared for one in loaded if one.prepared is not None]
    results = detector.predict_prepared(prepared, batch_size=settings.batch_size)
    for one in loaded:
        yield one, None if one.prepared is None else next(results)


def _writer(
    detector: Detector, annotated: Path | None, pictures: set[str | None]
) -> Callable[[Iterator[tuple[_Loaded, Detections | None]]], Iterator[Callable[[], JournalEntry]]]:
    """What is to be done for each image in a thread: its picture first, so that a line says that it is there."""
    from ld_runtime.draw import draw

    def finish(one: _Loaded, found: Detections | None, picture: str | None) -> JournalEntry:
        if found is None:
            return JournalEntry(one.name, refused=one.refused or "")
        if annotated is not None and picture is not None and one.image is not None:
            write_image(annotated / picture, draw(one.image, found, class_names=detector.class_names))
        return JournalEntry(one.name, one.image_hw, found, picture=picture)

    def write(results: Iterator[tuple[_Loaded, Detections | None]]) -> Iterator[Callable[[], JournalEntry]]:
        for one, found in results:
            picture = None
            if annotated is not None and found is not None:
                picture = free_name(Path(one.name).stem, pictures)
                pictures.add(picture)
            yield lambda one=one, found=found, picture=picture: finish(one, found, picture)  # type: ignore[misc]

    return write


def free_name(stem: str, taken: set[str | None]) -> str:
    """A JPEG's name; two images of one stem, by suffix or folder, keep apart by a number."""
    name, number = f"{stem}.jpg", 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}.jpg"
    return name


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Writes an image by the format of its suffix, whole or not at all.

    Raises:
        LdDeployError: It cannot be written.
    """
    import cv2

    ok, data = cv2.imencode(path.suffix, image)
    if not ok:
        raise LdDeployError(f"OpenCV cannot write {path}")
    with written_whole(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _remove_temporary(annotated: Path) -> None:
    """What a killed run was writing."""
    if annotated.is_dir():
        for entry in os.scandir(annotated):
            if _TEMPORARY_PICTURE.fullmatch(entry.name):
                Path(entry.path).unlink()


def _write_refused(path: Path, journal: DetectionJournal) -> tuple[int, tuple[str, ...], int]:
    """Counts images and refused ones, and writes the reasons, where there are any, in place of an earlier run's."""
    images, refused, first = 0, 0, []
    with written_whole(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for entry in journal.entries():
            if entry.refused is None:
                images += 1
                continue
            refused += 1
            if refused <= 10:
                first.append(entry.refused)
            file.write(" ".join(entry.refused.split()) + "\n")
    if not refused:
        path.unlink()
    return images, tuple(first), refused
