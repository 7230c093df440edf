"""AP by the names of this project, from what mmdet's metrics give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

# By the name of CocoMetric, of VOCRangeMetric, and of DOTAMetric.
NAMES = {
    "ap": ("coco/bbox_mAP", "pascal_voc/AP", "dota/AP"),
    "ap50": ("coco/bbox_mAP_50", "pascal_voc/AP50", "dota/AP50"),
    "ap75": ("coco/bbox_mAP_75", "pascal_voc/AP75", "dota/AP75"),
}


def ap_of(metrics: Mapping[str, float]) -> dict[str, float]:
    """AP from 0 to 1: `ap`, `ap50`, `ap75`. All are 0 where there are no metrics, as of mmdet where no box was found.

    Raises:
        ConfigError: The evaluator gave other metrics.
    """
    if not metrics:
        return dict.fromkeys(NAMES, 0.0)
    found = {key: float(metrics[name]) for key, names in NAMES.items() for name in names if name in metrics}
    if set(found) != set(NAMES):
        given = ", ".join(metrics)
        message = f"AP is read from CocoMetric, VOCRangeMetric or DOTAMetric; the config's evaluator gives {given}"
        raise ConfigError(message)
    return found
