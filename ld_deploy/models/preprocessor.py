from __future__ import annotations

from typing import Any

import torch
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS


@MODELS.register_module()
class PadMeanPreprocessor(DetDataPreprocessor):
    """Pads the uint8 image with the rounded mean, then normalises.

    mmdet pads zeros after the normalisation, which a file that takes uint8 cannot reproduce. With this one, training,
    PyTorch evaluation and the deployed file see the same pixels.

    Args:
        input_hw: height and width of a fixed canvas in pixels; None pads to the next multiple of `pad_size_divisor`.
        kwargs: mmdet's `DetDataPreprocessor` arguments; `mean` and `std` are needed.

    Raises:
        ValueError: No mean was given: there is nothing to pad with.
    """

    def __init__(self, *, input_hw: tuple[int, int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.input_hw = input_hw
        if not self._enable_normalize:
            raise ValueError("PadMeanPreprocessor needs mean and std")
        mean = self.mean.flatten()
        if self._channel_conversion:  # the mean is in the network's channel order, the images are not yet
            mean = mean.flip(0)
        self.pad_pixel: tuple[int, ...] = tuple(int(value) for value in mean.round().tolist())

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """As mmdet's: `inputs` is a list of uint8 (3, H, W), or one uint8 (N, 3, H, W)."""
        pad_shapes = self._get_pad_shape(data)
        height, width = (max(side) for side in zip(*pad_shapes, strict=True))
        data = {**data, "inputs": [self._pad(image, height, width) for image in data["inputs"]]}
        result: dict[str, Any] = super().forward(data, training=training)
        for sample, pad_shape in zip(result["data_samples"] or [], pad_shapes, strict=False):
            sample.set_metainfo({"pad_shape": pad_shape})
        return result

    def _get_pad_shape(self, data: dict[str, Any]) -> list[tuple[int, int]]:
        shapes: list[tuple[int, int]] = super()._get_pad_shape(data)
        if self.input_hw is None:
            return shapes
        height, width = self.input_hw
        return [(max(h, height), max(w, width)) for h, w in shapes]

    def _pad(self, image: torch.Tensor, height: int, width: int) -> torch.Tensor:
        canvas = image.new_empty((3, height, width))
        canvas[:] = image.new_tensor(self.pad_pixel)[:, None, None]
        canvas[:, : image.shape[1], : image.shape[2]] = image
        return canvas
