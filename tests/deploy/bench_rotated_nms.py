"""Times the forms of the rotated NMS on one thread of this CPU: `python -m tests.deploy.bench_rotated_nms`.

Beside them, what mmrotate's test pipeline would do on torchvision's kernel: the matrix of all IoUs and a greedy loop
over it, without votes. One JSON line per scene; times are medians in microseconds, arrays in, arrays out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torchvision.ops import box_iou

from ld_deploy.rotated_voting_nms import rotated_cluster_nms_torch
from ld_runtime import native
from ld_runtime.rotated_nms import RotatedNmsSettings, rotated_cluster_nms_numpy
from tests.runtime.rotated_cases import Scene, crowd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SETTINGS = RotatedNmsSettings()


def greedy_on_all_ious(scene: Scene) -> NDArray[np.int64]:
    """Indices of the kept boxes, best first. Classes are moved apart, as mmcv does it."""
    order = np.argsort(-scene.scores, kind="stable")
    boxes = torch.from_numpy(scene.boxes[order])
    boxes[:, 4] = boxes[:, 4].rad2deg()
    boxes[:, :2] += torch.from_numpy(scene.labels[order])[:, None] * 1e4
    falls = box_iou(boxes, boxes, fmt="cxcywhr").numpy() > SETTINGS.iou_threshold
    alive = np.ones(len(order), dtype=bool)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~falls[i, i + 1 :]
    return order[alive]


def median_us(call: Callable[[], object], repeats: int) -> float:
    """After one call to warm up."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return round(1e6 * statistics.median(times))


def main() -> None:
    """The command."""
    torch.set_num_threads(1)
    for count in (1000, 2000):
        for classes in (1, 15):
            scene = crowd(0, count, classes=classes, extent=32 * count**0.5)
            tensors = [torch.from_numpy(one) for one in scene]
            report = {
                "candidates": count,
                "classes": classes,
                "kept": len(native.rotated_cluster_nms(*scene, settings=SETTINGS)[1]),
                "native_us": median_us(lambda s=scene: native.rotated_cluster_nms(*s, settings=SETTINGS), 51),
                "numpy_us": median_us(lambda s=scene: rotated_cluster_nms_numpy(*s, settings=SETTINGS), 3),
                "torch_us": median_us(lambda t=tensors: rotated_cluster_nms_torch(*t, settings=SETTINGS), 3),
                "greedy_on_all_ious_us": median_us(lambda s=scene: greedy_on_all_ious(s), 3),
            }
            sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
