"""AP by PASCAL VOC's protocol over COCO's range of IoU thresholds, as results on VOC are published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mmdet.evaluation.functional import average_precision
from mmdet.evaluation.functional.mean_ap import get_cls_results, tpfp_default
from mmdet.evaluation.metrics import VOCMetric
from mmdet.registry import METRICS

from ld_runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# 0.5, 0.55, ... 0.95: each the float32 nearest to its decimal, as mmdet's IoU is float32, so that a pair of exactly
# 0.95 counts. Adding 0.05 up, as the published code does, ends at 0.9500000000000004.
IOU_THRESHOLDS = np.array([percent / 100 for percent in range(50, 100, 5)], dtype=np.float32)
EVAL_MODES = ("11points", "area")


@METRICS.register_module()
class VOCRangeMetric(VOCMetric):
    """AP, AP50, AP55 ... AP95, each 0 to 1; `AP` is the mean over the ten thresholds.

    Box sides are x2 - x1, without VOC's legacy pixel more, as LD's published results on VOC have it. A box marked as
    difficult or ignored is neither found nor missed, and a detection that overlaps it best counts neither way. A class
    without a box is left out of the mean. mmdet's own functions match and integrate; its 11 points are multiples of 0.1
    in float64, of which the fourth, seventh and eighth lie one ulp above 0.3, 0.6 and 0.7.

    The best checkpoint: `default_hooks.checkpoint = dict(save_best='pascal_voc/AP', rule='greater')`; mmengine does not
    guess the rule from this key.

    Args:
        eval_mode: '11points' as in VOC2007, or 'area' under the curve as in VOC2012.
        classwise: give `AP_NAME` and `AP50_NAME` of each class that has boxes too.
        collect_device: where the results of several processes are collected: 'cpu' or 'gpu'.
        prefix: of the keys; default `pascal_voc`.

    Raises:
        ConfigError: There is no such mode.
    """

    def __init__(
        self,
        *,
        eval_mode: str = "11points",
        classwise: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ) -> None:
        if eval_mode not in EVAL_MODES:
            raise ConfigError(f"eval_mode of VOCRangeMetric must be one of {', '.join(EVAL_MODES)}, got {eval_mode!r}")
        super().__init__(eval_mode=eval_mode, collect_device=collect_device, prefix=prefix)
        self.classwise = classwise

    def compute_metrics(self, results: list[tuple[dict[str, Any], list[NDArray[np.float32]]]]) -> dict[str, float]:
        """The metrics of all images.

        Args:
            results: per image the annotation (`bboxes` (m, 4), `labels` (m,), both with `_ignore` too) and per class
                the detections (n, 5): x1 y1 x2 y2 score.

        Raises:
            DataError: There is no image.
        """
        if not results:
            raise DataError("no image was evaluated: look at ann_file and data_root of the data set")
        annotations, detections = zip(*results, strict=True)
        names = self.dataset_meta["classes"]
        aps = {name: self.ap_of_class(detections, annotations, label) for label, name in enumerate(names)}
        counted = {name: values for name, values in aps.items() if values is not None}
        mean = np.mean(list(counted.values()), axis=0) if counted else np.zeros(len(IOU_THRESHOLDS))
        metrics = {"AP": float(mean.mean())}
        metrics |= {f"AP{percent}": float(ap) for percent, ap in zip(range(50, 100, 5), mean, strict=True)}
        if self.classwise:
            metrics |= {f"AP_{name}": float(values.mean()) for name, values in counted.items()}
            metrics |= {f"AP50_{name}": float(values[0]) for name, values in counted.items()}
        return metrics

    def ap_of_class(
        self, detections: Sequence[Any], annotations: Sequence[dict[str, Any]], label: int
    ) -> NDArray[np.float64] | None:
        """AP of a class at each threshold; None where it has no box that counts.

        In this process: mmdet's `eval_map` forks a pool for every threshold.
        """
        images = list(zip(*get_cls_results(detections, annotations, label), strict=True))
        boxes = sum(len(truth) for _, truth, _ in images)
        if not boxes:
            return None
        images = [image for image in images if len(image[0])]
        if not images:
            return np.zeros(len(IOU_THRESHOLDS))
        order = np.argsort(-np.concatenate([found[:, -1] for found, _, _ in images]), kind="stable")
        aps = []
        for threshold in IOU_THRESHOLDS:
            matched = [tpfp_default(*image, iou_thr=threshold) for image in images]
            right, wrong = (
                np.cumsum(np.hstack(kind)[0, order], dtype=np.float64) for kind in zip(*matched, strict=True)
            )
            precision = right / np.maximum(right + wrong, 1)
            aps.append(average_precision(right / boxes, precision, self.eval_mode))
        return np.array(aps, dtype=np.float64)
