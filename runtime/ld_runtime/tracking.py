"""Ids that stay with objects from frame to frame, by ByteTrack. The only module that names `trackers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ld_runtime.errors import BackendMissingError

if TYPE_CHECKING:
    from ld_runtime.detections import Detections

NO_TRACK = -1


class Tracker:
    """Gives the detections of one video ids. It looks at boxes and scores, not at labels.

    Args:
        fps: frames a second that it will see.
        score_threshold: of the detections. A track begins with a score of 0.1 above it, and goes on with any.

    Raises:
        BackendMissingError: trackers is not installed.
    """

    def __init__(self, *, fps: float, score_threshold: float) -> None:
        try:
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise BackendMissingError("tracking needs trackers: pip install 'ld-deploy[track]'") from error
        begin = min(score_threshold + 0.1, 0.99)
        self._tracker = ByteTrackTracker(
            frame_rate=fps, track_activation_threshold=begin, high_conf_det_threshold=begin
        )

    def __call__(self, detections: Detections) -> tuple[int, ...]:
        """Ids of the next frame's detections, in their order; `NO_TRACK` for those that are in no track (yet)."""
        marks = detections.to_supervision()
        marks.data["place"] = np.arange(len(detections))
        ids = [NO_TRACK] * len(detections)
        tracked = self._tracker.update(marks)
        for place, track in zip(tracked.data.get("place", ()), tracked.tracker_id, strict=True):
            ids[int(place)] = int(track)
        return tuple(ids)
