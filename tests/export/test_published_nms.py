"""The published form as it is written here gives the published detections, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ld_export.published_nms import published_nms
from ld_runtime.model_card import NmsSettings

ORACLES = Path(__file__).parents[1] / "oracles"


@pytest.mark.parametrize("scene", ["small", "mid", "crowd", "dense", "capped"])
def test_published_scenes(scene: str) -> None:
    with np.load(ORACLES / "cluster_nms.npz") as file:
        arrays = {name.split(".")[1]: file[name] for name in file.files if name.startswith(f"{scene}.")}
    score_threshold, iou_threshold, most = (float(value) for value in arrays["cfg"])
    settings = NmsSettings(iou_threshold=iou_threshold, score_threshold=score_threshold, max_detections=int(most))
    rows = arrays["boxes"][arrays["prior"]], arrays["score"], arrays["label"].astype(np.int64)
    boxes, scores, labels = published_nms(*map(torch.from_numpy, rows), settings=settings)
    np.testing.assert_array_equal(labels, arrays["labels"])
    np.testing.assert_array_equal(scores, arrays["dets"][:, 4])
    np.testing.assert_allclose(boxes, arrays["dets"][:, :4], atol=2e-3, rtol=0)
    assert len(scores) > 5
