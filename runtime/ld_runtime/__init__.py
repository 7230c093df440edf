"""Inference for models that ld-deploy exported: images, video, NMS, benchmark, parity. Never imports torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ld_runtime.cluster_nms import cluster_diou_nms
    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector

__all__ = ["Detections", "Detector", "cluster_diou_nms"]

_HOMES = {
    "Detections": "ld_runtime.detections",
    "Detector": "ld_runtime.detector",
    "cluster_diou_nms": "ld_runtime.cluster_nms",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that `ld-deploy --help` imports no numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'ld_runtime' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
