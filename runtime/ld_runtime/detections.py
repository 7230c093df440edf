"""The result type between every model and every consumer: plain numpy, checked at birth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ld_runtime.errors import InputError
from ld_runtime.model_card import SIDES
from ld_runtime.rotated_boxes import hulls_of, polygons_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Detections:
    """Detections of one image.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in pixels of the original image; or rotated ones float32 (n, 5), cx cy w h
            angle: pixels and radians, the angle clockwise on the screen, from the x axis to the side w.
        scores: float32 (n,), descending.
        labels: int64 (n,), 0-based index into the class names; there is no background class.

    Raises:
        InputError: Shapes or types differ from these, or the scores are not descending.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        rotated = getattr(self.boxes, "shape", ())[1:] == (SIDES["cxcywha"],)
        sides = SIDES["cxcywha" if rotated else "xyxy"]
        wanted = {"boxes": (np.float32, (None, sides)), "scores": (np.float32, (None,)), "labels": (np.int64, (None,))}
        for name, (dtype, shape) in wanted.items():
            array = getattr(self, name)
            ok = isinstance(array, np.ndarray) and array.dtype == dtype and array.ndim == len(shape)
            if not ok or any(want is not None and want != got for want, got in zip(shape, array.shape, strict=True)):
                got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
                raise InputError(f"Detections.{name} must be {np.dtype(dtype)} of shape {shape}, got {got}")
        if not len(self.boxes) == len(self.scores) == len(self.labels):
            lengths = (len(self.boxes), len(self.scores), len(self.labels))
            raise InputError(f"boxes, scores and labels must have one length, got {lengths}")
        if np.any(self.scores[:-1] < self.scores[1:]):
            raise InputError("scores must be descending: sort the detections first")

    @classmethod
    def empty(cls) -> Detections:
        """No detections."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))

    @classmethod
    def from_lists(cls, content: Mapping[str, Any]) -> Detections:
        """From `boxes`, `scores` and `labels` as JSON has them, and `box_format` where boxes are rotated.

        Raises:
            InputError: They are no detections.
        """
        sides = SIDES[content.get("box_format", "xyxy")]
        return cls(
            np.array(content["boxes"], np.float32).reshape(-1, sides),
            np.array(content["scores"], np.float32),
            np.array(content["labels"], np.int64),
        )

    @property
    def is_rotated(self) -> bool:
        """Whether boxes are cx cy w h angle."""
        return bool(self.boxes.shape[1] == SIDES["cxcywha"])

    @property
    def hulls(self) -> NDArray[np.float32]:
        """float32 (n, 4): the smallest upright boxes around the boxes, x1 y1 x2 y2; upright boxes themselves."""
        return hulls_of(self.boxes) if self.is_rotated else self.boxes

    @property
    def polygons(self) -> NDArray[np.float32]:
        """float32 (n, 4, 2): corners x y, clockwise on the screen; of upright boxes the upper left one first."""
        return polygons_of(self.boxes) if self.is_rotated else self.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]

    def __len__(self) -> int:
        return len(self.scores)

    def above(self, score_threshold: float) -> Detections:
        """The detections with `score > score_threshold`."""
        keep = self.scores > score_threshold
        return Detections(self.boxes[keep], self.scores[keep], self.labels[keep])

    def to_coco(self, *, image_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """COCO result rows: `bbox` is x, y, width, height in pixels of the original image.

        A rotated box has its hull as `bbox`, its corners as `segmentation`, and `rotated_bbox`: cx cy w h angle.

        Args:
            image_id: COCO id of the image.
            category_ids: COCO's `category_id` of each label.
        """
        rows: list[dict[str, Any]] = [
            {
                "image_id": image_id,
                "category_id": int(category_ids[label]),
                "bbox": [float(x1), float(y1), float(x2) - float(x1), float(y2) - float(y1)],
                "score": float(score),
            }
            for (x1, y1, x2, y2), score, label in zip(self.hulls, self.scores, self.labels, strict=True)
        ]
        if self.is_rotated:
            for row, box, corners in zip(rows, self.boxes.tolist(), self.polygons.reshape(-1, 8).tolist(), strict=True):
                row.update(segmentation=[corners], rotated_bbox=box)
        return rows

    def to_supervision(self) -> Any:
        """The same as a `supervision.Detections`, for its annotators, trackers and sinks.

        Rotated boxes are its oriented ones: hulls, and the corners in `data["xyxyxyxy"]`.

        Raises:
            BackendMissingError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            from ld_runtime.errors import BackendMissingError

            message = "supervision is not installed: pip install 'ld-deploy[draw]'"
            raise BackendMissingError(message) from error
        data = {"xyxyxyxy": self.polygons} if self.is_rotated else {}
        return supervision.Detections(
            xyxy=self.hulls, confidence=self.scores, class_id=self.labels.astype(int), data=data
        )
