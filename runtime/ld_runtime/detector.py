"""`Detector`: images in, `Detections` out, in pixels of the original image."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.detections import Detections
from ld_runtime.engines import open_engine
from ld_runtime.errors import ConfigError, EngineError
from ld_runtime.preprocess import decode, prepare
from ld_runtime.rotated_boxes import rescaled
from ld_runtime.rotated_nms import is_box

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from ld_runtime.engines import Arithmetic, Backend, Engine, EngineOutput, NmsPlace
    from ld_runtime.model_card import ModelCard
    from ld_runtime.preprocess import Prepared

# `predict` looks this many batches ahead for canvases of one size: enough to sort landscape from portrait.
_LOOK_AHEAD = 4


class Detector:
    """A deployed model file, ready to be called. Not promised to be thread-safe: one per thread.

    Args:
        model: an `.onnx` file from `ld-deploy export`, or an engine from `ld-deploy build`.
        device: `cpu`, `cuda` or `cuda:N`.
        backend: what runs it; None: ONNX Runtime for `.onnx`, and for an engine the library that built it.
        precision: `bf16` has OpenVINO compute a float32 file in bfloat16; None: as the file is.
        nms: where the NMS of an `.onnx` file is computed: see `ld_runtime.engines.open_engine`.
        score_threshold: at least the file's own; None takes that. A higher one only filters: boxes are not moved by
            it, so candidates below it still have their votes (a file exported with it would not count those).
        max_detections: at most the file's own; None takes that. The best so many of each image are returned.
        threads: CPU threads of one run; None takes every core.

    Raises:
        ConfigError: A setting that needs another export; the message has the command.
        EngineError: The file cannot be loaded, or has no NMS in it.
        ModelCardError: The file carries no readable model card.
        BackendMissingError: The engine's library or the device is not there.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "cpu",
        backend: Backend | None = None,
        precision: Arithmetic | None = None,
        nms: NmsPlace | None = None,
        score_threshold: float | None = None,
        max_detections: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.engine: Engine = open_engine(
            model, device=device, threads=threads, backend=backend, precision=precision, nms=nms
        )
        self.card: ModelCard = self.engine.card
        self.class_names: tuple[str, ...] = self.card.class_names
        export = f"ld-deploy export CONFIG CHECKPOINT -o {Path(model).name}"
        if self.card.nms_kind == "none":
            message = f"{model} was exported with --nms none: its outputs are candidates, not detections"
            raise EngineError(f"{message}; export it with the NMS inside: `{export}`")

        own = self.card.nms
        self.score_threshold = own.score_threshold if score_threshold is None else score_threshold
        self.max_detections = own.max_detections if max_detections is None else max_detections
        if not own.score_threshold <= self.score_threshold <= 1:
            message = f"score_threshold must be from {own.score_threshold} (what {model} was exported with) to 1"
            way_out = export.replace(" -o", f" --score-threshold {score_threshold} -o")
            raise ConfigError(f"{message}, got {score_threshold}; for a lower one export again: `{way_out}`")
        if not 0 <= self.max_detections <= own.max_detections:
            message = f"max_detections must be from 0 to {own.max_detections} (what {model} was exported with)"
            way_out = export.replace(" -o", f" --max-detections {max_detections} -o")
            raise ConfigError(f"{message}, got {max_detections}; for more export again: `{way_out}`")

    def __call__(self, image: NDArray[np.uint8] | str | Path) -> Detections:
        """Detects in one image.

        Args:
            image: uint8 (H, W, 3), BGR as OpenCV gives it, or a path.

        Raises:
            InputError: The image cannot be read or has the wrong form.
        """
        prepared = self.prepare(image)
        return self.finish(self.run([prepared]), prepared, index=0)

    def predict(self, images: Iterable[NDArray[np.uint8] | str | Path], *, batch_size: int = 1) -> Iterator[Detections]:
        """Detects in many images, lazily, in their order.

        Only images with the same canvas share a batch, so no image is padded for its neighbours' sake and a result
        does not depend on them, but for the engine's own rounding. Up to `4 * batch_size` images are held at a time.

        Args:
            images: arrays or paths, as for a single call.
            batch_size: the most images that one run takes.

        Raises:
            ConfigError: `batch_size` is below 1.
            InputError: An image cannot be read or has the wrong form; the results before its group were yielded.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, got {batch_size}")
        return self.predict_prepared(map(self.prepare, images), batch_size=batch_size)

    def predict_prepared(self, images: Iterable[Prepared], *, batch_size: int) -> Iterator[Detections]:
        """`predict` for images that were prepared elsewhere, in other threads perhaps.

        Args:
            images: each from `prepare` of this detector.
            batch_size: the most images that one run takes, 1 or more.
        """
        todo = iter(images)
        while ahead := list(islice(todo, _LOOK_AHEAD * batch_size)):
            by_canvas: dict[tuple[int, ...], list[int]] = {}
            for position, prepared in enumerate(ahead):
                by_canvas.setdefault(prepared.canvas.shape, []).append(position)
            results: dict[int, Detections] = {}
            for positions in by_canvas.values():
                for start in range(0, len(positions), batch_size):
                    batch = positions[start : start + batch_size]
                    output = self.run([ahead[position] for position in batch])
                    for index, position in enumerate(batch):
                        results[position] = self.finish(output, ahead[position], index=index)
            yield from (results[position] for position in range(len(ahead)))

    def stream(
        self, source: str | Path | int, *, every: int = 1, drop: bool = False, reconnect: int = 0
    ) -> Iterator[tuple[NDArray[np.uint8], Detections]]:
        """Detects in a video, frame by frame: the next ones are read and run while the caller works on this one.

        The detector runs in a thread of its own until the generator has ended or was closed: do not call it meanwhile.
        `ld_runtime.streams.VideoStreams` does the same with time stamps, batches and several sources.

        Args:
            source: a video file, a camera index, or an RTSP or HTTP address.
            every: 2 takes each second frame.
            drop: whether frames that there is no time for give way to the newest one: for live sources.
            reconnect: how often in a row a network stream that is lost is opened again.

        Yields:
            The frame, BGR uint8 (H, W, 3), and its detections.

        Raises:
            InputError: The source cannot be opened, or breaks off; the frames before that were yielded.
            ConfigError: `every` is below 1 or `reconnect` below 0.
            BackendMissingError: PyAV is not installed.
        """
        from contextlib import closing

        from ld_runtime.streams import VideoStreams
        from ld_runtime.video_reader import ReadSettings

        settings = ReadSettings(every=every, drop=drop, reconnect=reconnect)
        with closing(VideoStreams(self, [source], settings=settings).results()) as results:
            for result in results:
                yield result.frame.image, result.detections

    def prepare(self, image: NDArray[np.uint8] | str | Path) -> Prepared:
        """The first stage of a call: reads the image if it is a path, resizes and pads it.

        Raises:
            InputError: The image cannot be read or has the wrong form.
        """
        return prepare(decode(image) if isinstance(image, str | Path) else image, self.card.preprocess)

    def run(self, prepared: Sequence[Prepared]) -> EngineOutput:
        """The second stage: the model file, on images with one canvas size.

        Raises:
            EngineError: The file does not take this size, or running it failed.
        """
        canvases = [one.canvas for one in prepared]
        return self.engine.run(canvases[0][None] if len(canvases) == 1 else np.stack(canvases))

    def finish(self, output: EngineOutput, prepared: Prepared, *, index: int) -> Detections:
        """The last stage: filters, and maps the boxes of one image from its canvas to its original.

        Args:
            output: of a batch.
            prepared: the image at `index` in that batch.
            index: which image.

        Returns:
            Upright boxes clipped to the image; those that clip to nothing are left out. Rotated ones are not clipped:
            what is left of one at the border is no rotated box.
        """
        count = min(int(output.num_detections[index]), self.max_detections)
        scores, labels = output.scores[index, :count], output.labels[index, :count]
        if self.card.is_rotated:
            x_factor, y_factor = prepared.scale_factor
            boxes = rescaled(output.boxes[index, :count], (1 / x_factor, 1 / y_factor))
            keep = (scores > self.score_threshold) & is_box(boxes)
            return Detections(boxes[keep], scores[keep], labels[keep])
        # mmdet multiplies by the float32 inverse; dividing would differ in the last bit.
        back = np.array([1 / factor for factor in prepared.scale_factor] * 2, dtype=np.float32)
        height, width = prepared.image_hw
        limits = np.array([width, height, width, height], dtype=np.float32)
        boxes = np.clip(output.boxes[index, :count] * back, np.float32(0), limits)
        keep = (scores > self.score_threshold) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        return Detections(boxes[keep], scores[keep], labels[keep])
