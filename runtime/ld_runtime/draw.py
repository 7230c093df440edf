"""Annotated images, drawn by supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.errors import BackendMissingError
from ld_runtime.preprocess import check_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from ld_runtime.detections import Detections

# One colour per class, over again after the last; dark enough for white text.
COLOURS = ("#c1272d", "#0060a8", "#1b7a3a", "#8e44ad", "#b35900", "#00737a", "#a8326e", "#5b4a2f", "#3a3fa8", "#4d6b00")


def draw(
    image: NDArray[np.uint8],
    detections: Detections,
    *,
    class_names: Sequence[str],
    track_ids: Sequence[int] | None = None,
    spread_labels: bool = True,
) -> NDArray[np.uint8]:
    """Draws boxes with class name and score; one colour per class, line and text in proportion to the image.

    Rotated boxes are drawn tilted.

    Args:
        image: uint8 (H, W, 3), BGR. It is not changed.
        detections: of this image.
        class_names: the name of each label.
        track_ids: of each detection, below 0 for none.
        spread_labels: whether texts are moved so that they do not cover each other, which takes most of the time
            where there are many.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        BackendMissingError: supervision is not installed.
        InputError: The image has the wrong form.
    """
    try:
        import supervision
    except ImportError as error:
        raise BackendMissingError("drawing needs supervision: pip install 'ld-deploy[draw]'") from error

    image = check_image(image)
    resolution_wh = (image.shape[1], image.shape[0])
    # supervision's optimum goes down to 0.3 of OpenCV's font on small images, which nobody can read.
    text_scale = max(0.4, supervision.calculate_optimal_text_scale(resolution_wh=resolution_wh))
    thickness = supervision.calculate_optimal_line_thickness(resolution_wh=resolution_wh)
    palette = supervision.ColorPalette.from_hex(list(COLOURS))
    annotator = supervision.OrientedBoxAnnotator if detections.is_rotated else supervision.BoxAnnotator
    boxes = annotator(palette, thickness=thickness)
    labels = supervision.LabelAnnotator(palette, text_scale=text_scale, text_padding=3, smart_position=spread_labels)
    texts = [
        f"{f'#{track} ' if track >= 0 else ''}{class_names[label]} {score:.2f}"
        for label, score, track in zip(
            detections.labels, detections.scores, track_ids or [-1] * len(detections), strict=True
        )
    ]
    marks = detections.to_supervision()
    drawn = boxes.annotate(image.copy(), marks)
    return np.asarray(labels.annotate(drawn, marks, labels=texts), dtype=np.uint8)
