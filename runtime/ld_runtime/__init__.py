"""Inference for models that ld-deploy exported: images, video, NMS, benchmark, parity. Never imports torch."""

from ld_runtime.cluster_nms import cluster_diou_nms
from ld_runtime.detections import Detections
from ld_runtime.detector import Detector

__all__ = ["Detections", "Detector", "cluster_diou_nms"]
