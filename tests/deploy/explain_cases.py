"""What the tests of self-explaining trainings share: terms, a pipeline that draws, samples."""

from __future__ import annotations

from typing import Any

import torch

FLIPPED = [
    {"type": "LoadImageFromFile"},
    {"type": "LoadAnnotations", "with_bbox": True},
    {"type": "Resize", "scale": (96, 64), "keep_ratio": True},
    {"type": "RandomFlip", "prob": 0.5},
    {"type": "PackDetInputs"},
]
DISTILL = [
    {"type": "LocalizationKD", "region": "main", "weight": 1.5, "temperature": 10},
    {"type": "LocalizationKD", "region": {"type": "vlr", "gamma": 0.1}, "weight": 0.4, "temperature": 10},
    {"type": "ClassificationKD", "region": "main", "weight": 5, "temperature": 2},
    {"type": "FeatureKD", "region": "gi", "weight": 2},
]


def same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    return bool(first == second)


def sample(boxes: list[list[float]], labels: list[int]) -> dict[str, Any]:
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    found = DetDataSample(metainfo={"img_shape": (64, 90), "ori_shape": (64, 90), "scale_factor": (1, 1)})
    found.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4), labels=torch.tensor(labels, dtype=torch.long)
    )
    pixels = torch.randint(0, 256, (3, 64, 90), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {"inputs": pixels, "data_samples": found}


BOXES, LABELS = [[8.0, 8.0, 40.0, 40.0], [50.0, 5.0, 88.0, 60.0]], [0, 1]
