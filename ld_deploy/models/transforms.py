from __future__ import annotations

from typing import Any

from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Letterbox(Resize):
    """Resizes to the largest size of the same aspect that fits into a fixed canvas, portrait or landscape.

    mmdet's `Resize(scale, keep_ratio=True)` takes `scale` as a long and a short edge, so that a portrait image does not
    fit the canvas of a landscape one. The padding is `PadMeanPreprocessor(input_hw=...)`'s.

    Args:
        input_hw: height and width of the canvas in pixels.
    """

    def __init__(self, *, input_hw: tuple[int, int]) -> None:
        super().__init__(scale=(input_hw[1], input_hw[0]), keep_ratio=False)
        self.input_hw = tuple(input_hw)

    def _resize_img(self, results: dict[str, Any]) -> None:
        height, width = results["img"].shape[:2]
        factor = min(self.input_hw[0] / height, self.input_hw[1] / width)
        results["scale"] = (int(width * factor + 0.5), int(height * factor + 0.5))
        super()._resize_img(results)
