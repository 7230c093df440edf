"""AP from what mmdet's metrics give."""

from __future__ import annotations

import pytest

from ld_deploy.ap import ap_of
from ld_runtime.errors import ConfigError

COCO = ("coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_mAP_75")
VOC = ("pascal_voc/AP", "pascal_voc/AP50", "pascal_voc/AP75")


@pytest.mark.parametrize("names", [COCO, VOC])
def test_ap_of_both_metrics_whatever_their_order(names: tuple[str, ...]) -> None:
    metrics = dict(zip(names[::-1], (0.3, 0.5, 0.4), strict=True)) | {"coco/bbox_mAP_s": 0.1}
    assert ap_of(metrics) == {"ap": 0.4, "ap50": 0.5, "ap75": 0.3}
    assert list(ap_of(metrics)) == ["ap", "ap50", "ap75"]


def test_no_box_found_is_zero_and_other_metrics_are_an_error() -> None:
    assert ap_of({}) == {"ap": 0, "ap50": 0, "ap75": 0}
    for metrics in ({"x": 1.0}, {"coco/bbox_mAP": 0.4}, {"pascal_voc/mAP": 0.4, "pascal_voc/AP50": 0.6}):
        with pytest.raises(ConfigError, match="CocoMetric, VOCRangeMetric or DOTAMetric; the config's evaluator gives"):
            ap_of(metrics)
