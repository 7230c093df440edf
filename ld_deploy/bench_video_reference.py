"""The loop over a video that mmdet's users write, for `ld-deploy bench-video --against CHECKPOINT`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import torch
from mmdet.apis import inference_detector
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import Compose

from ld_deploy.bench_reference import reference_model
from ld_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class MmdetVideoLoop:
    """cv2.VideoCapture, `inference_detector`, `DetLocalVisualizer`, cv2.VideoWriter: as mmdet's video_demo.py.

    Args:
        model: in eval mode.
        config: of it.
        score_threshold: of what is drawn.
        max_detections: the best that are drawn in a frame; None draws all.
    """

    name = "mmdet video loop"

    def __init__(self, model: Any, config: Any, *, score_threshold: float, max_detections: int | None = None) -> None:
        self._model = model
        config.test_dataloader.dataset.pipeline[0] = {"type": "mmdet.LoadImageFromNDArray", "backend_args": None}
        model.cfg = config
        self._pipeline = Compose(config.test_dataloader.dataset.pipeline)
        self._score_threshold = score_threshold
        self._max_detections = max_detections
        self._visualizer = DetLocalVisualizer()
        self._visualizer.dataset_meta = getattr(model, "dataset_meta", None) or {
            "classes": tuple(config.get("class_names", ())) or None
        }
        self.settings: Mapping[str, str | int | float] = {
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "score_threshold": score_threshold,
            **({} if max_detections is None else {"max_detections": max_detections}),
            "drawn by": "mmdet.visualization.DetLocalVisualizer",
            "encoder": "cv2.VideoWriter mp4v",
        }

    def run(self, video: Path, output: Path) -> tuple[int, int]:
        """Annotates a video; returns how many frames and detections it had.

        Raises:
            InputError: OpenCV cannot read or write it.
        """
        reader = cv2.VideoCapture(str(video))
        size = int(reader.get(cv2.CAP_PROP_FRAME_WIDTH)), int(reader.get(cv2.CAP_PROP_FRAME_HEIGHT))
        writer = cv2.VideoWriter(str(output), cv2.VideoWriter.fourcc(*"mp4v"), reader.get(cv2.CAP_PROP_FPS), size)
        if not reader.isOpened() or not writer.isOpened():
            raise InputError(f"OpenCV cannot read {video}, or write {output}")
        frames = detections = 0
        try:
            while True:
                there, image = reader.read()
                if not there:
                    return frames, detections
                result = inference_detector(self._model, image, test_pipeline=self._pipeline)
                result.pred_instances = result.pred_instances[: self._max_detections]  # the best come first
                self._visualizer.add_datasample(
                    "video", image, result, draw_gt=False, show=False, pred_score_thr=self._score_threshold
                )
                writer.write(self._visualizer.get_image())
                frames += 1
                detections += int((result.pred_instances.scores > self._score_threshold).sum())
        finally:
            reader.release()
            writer.release()


def video_reference(
    checkpoint: Path, device: str, *, score_threshold: float, max_detections: int | None = None
) -> MmdetVideoLoop:
    """The loop with a model.

    Args:
        checkpoint: that `ld-deploy train` wrote, or a config, whose weights are then random.
        device: torch's name.
        score_threshold: of what is drawn.
        max_detections: the best that are drawn in a frame; None draws all.
    """
    model, config = reference_model(checkpoint, device=device)
    return MmdetVideoLoop(model, config, score_threshold=score_threshold, max_detections=max_detections)
