from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric

from ld_runtime.errors import ConfigError, DataError
from ld_runtime.rotated_eval import ApMode, RotatedImage, evaluate_rotated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@METRICS.register_module()
class DOTAMetric(BaseMetric):
    """AP of rotated boxes: `AP`, `AP50`, `AP55` ... `AP95`, each 0 to 1; see `ld_runtime.rotated_eval`.

    The truth is what the test pipeline's `LoadAnnotations(with_bbox=True, box_type='rbox')` loaded after any resizing;
    what it marks as ignored is difficult. The best checkpoint:
    `default_hooks.checkpoint = dict(save_best='dota/AP', rule='greater')`.

    Args:
        mode: '11points' as DOTA's script, or 'area' under the curve.
        classwise: give `AP_NAME` and `AP50_NAME` of each class that has boxes too.
        kwargs: of mmengine's `BaseMetric`.

    Raises:
        ConfigError: There is no such mode.
        DataError: A sample has no truth, or boxes that are not rotated.
    """

    default_prefix = "dota"

    def __init__(self, *, mode: ApMode = "11points", classwise: bool = False, **kwargs: Any) -> None:
        if mode not in ("11points", "area"):
            raise ConfigError(f"mode of DOTAMetric must be 11points or area, got {mode!r}")
        super().__init__(**kwargs)
        self.mode: ApMode = mode
        self.classwise = classwise

    def process(self, data_batch: Any, data_samples: Sequence[dict[str, Any]]) -> None:  # noqa: ARG002
        """Keeps detections and truth of a batch.

        Args:
            data_batch: not looked at.
            data_samples: with `pred_instances`, `gt_instances` and perhaps `ignored_instances`.
        """
        for sample in data_samples:
            if "gt_instances" not in sample:
                raise DataError("DOTAMetric found no truth: the test pipeline needs LoadAnnotations(box_type='rbox')")
            found, true = sample["pred_instances"], sample["gt_instances"]
            parts = [true, sample["ignored_instances"]] if "ignored_instances" in sample else [true]
            truth = [rows(part["bboxes"]) for part in parts]
            labels = [part["labels"].cpu().numpy().astype(np.int64) for part in parts]
            difficult = [np.full(len(each), bool(place)) for place, each in enumerate(truth)]
            self.results.append(
                RotatedImage(
                    rows(found["bboxes"]),
                    found["scores"].float().cpu().numpy(),
                    found["labels"].cpu().numpy().astype(np.int64),
                    np.concatenate(truth),
                    np.concatenate(labels),
                    np.concatenate(difficult),
                )
            )

    def compute_metrics(self, results: list[RotatedImage]) -> dict[str, float]:
        """The metrics of all images."""
        result = evaluate_rotated(results, class_names=self.dataset_meta["classes"], mode=self.mode)
        metrics = {"AP": result.ap}
        metrics |= {
            f"AP{percent}": float(ap) for percent, ap in zip(range(50, 100, 5), result.by_threshold, strict=True)
        }
        if self.classwise:
            metrics |= {f"AP_{name}": float(values.mean()) for name, values in result.by_class.items()}
            metrics |= {f"AP50_{name}": float(values[0]) for name, values in result.by_class.items()}
        return metrics


def rows(boxes: Any) -> NDArray[np.float32]:
    """float32 (n, 5) of boxes that are a tensor or mmdet's box type.

    Raises:
        DataError: They are not rotated.
    """
    tensor: torch.Tensor = getattr(boxes, "tensor", boxes)
    if tensor.shape[-1] != 5:
        raise DataError(f"DOTAMetric wants boxes of five numbers, got {tuple(tensor.shape)}")
    return tensor.detach().float().cpu().numpy()
