"""The structures of runtime/native/include/ld_settings.h, which the host library and the CUDA kernels take."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

    from ld_runtime.model_card import NmsSettings
    from ld_runtime.rotated_nms import RotatedNmsSettings

MOST = 2**31 - 1  # ctypes cuts a larger number to its low bits, and no limit would become a limit of 0


class _Settings(ctypes.Structure):
    """Attributes of an NMS, in the order of its `_fields_`."""

    @classmethod
    def of(cls, settings: NmsSettings | RotatedNmsSettings) -> Self:
        """The same numbers, `max_detections` at most `MOST`."""
        numbers = {field[0]: getattr(settings, field[0]) for field in cls._fields_}
        return cls(**{**numbers, "max_detections": min(settings.max_detections, MOST)})


class LdNmsSettings(_Settings):
    """Attributes of `ld_deploy::ClusterDIoUNMS`."""

    _fields_ = (
        ("distance_exponent", ctypes.c_double),
        ("iou_threshold", ctypes.c_float),
        ("vote_threshold", ctypes.c_float),
        ("vote_sigma", ctypes.c_float),
        ("score_threshold", ctypes.c_float),
        ("max_detections", ctypes.c_int32),
    )


class LdRotatedNmsSettings(_Settings):
    """Attributes of `ld_deploy::RotatedClusterNMS`."""

    _fields_ = (
        ("iou_threshold", ctypes.c_float),
        ("vote_threshold", ctypes.c_float),
        ("vote_sigma", ctypes.c_float),
        ("score_threshold", ctypes.c_float),
        ("max_detections", ctypes.c_int32),
    )


class LdLevel(ctypes.Structure):
    """One level of a GFL head: its map and its stride, in pixels."""

    _fields_ = (("height", ctypes.c_int32), ("width", ctypes.c_int32), ("stride", ctypes.c_int32))


class LdCandidateRule(ctypes.Structure):
    """Further attributes of `ld_deploy::GFLDetect`, and the canvas in pixels."""

    _fields_ = (
        ("classes", ctypes.c_int32),
        ("bins", ctypes.c_int32),
        ("per_level_top_k", ctypes.c_int32),
        ("pre_nms_top_k", ctypes.c_int32),
        ("canvas_height", ctypes.c_float),
        ("canvas_width", ctypes.c_float),
    )
