"""A model file without a network: it obeys the ONNX contract and finds the bright rectangle of each colour channel.

What it returns can be checked by hand, and a wrong channel order, orientation, resize or padding is seen in it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from ld_runtime.model_card import METADATA_KEY, ModelCard, NmsSettings, Preprocess
from tests.runtime.fake_engine import engine_file, gpu, library, record  # noqa: F401 - fixtures

# Score of a channel: its brightest value / 256, when that is at least 200. Box: around all values of at least 200.
GRAPH = """
<ir_version: 10, opset_import: ["" : 18]>
bright_rectangles (uint8[N, H, W, 3] images)
    => (int32[N, 1] num_detections, float[N, 3, 4] boxes, float[N, 3] scores, int64[N, 3] labels)
    <float bright = {200.0}, float zero = {0.0}, float one = {1.0}, float full = {256.0}, int64 none = {-1},
     int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2}, int64[1] rows = {1}, int64[1] columns = {2}, int64[1] k = {3},
     int64[2] outer = {0, 2}, int64[1] last = {2}, int64[3] wide = {1, 1, 4}, int64[2] area = {1, 2}>
{
  pixels = Cast <to = 1> (images)
  is_bright = GreaterOrEqual (pixels, bright)
  mask = Cast <to = 1> (is_bright)
  value = Mul (pixels, mask)
  brightest = ReduceMax <keepdims = 0> (value, area)
  found = Div (brightest, full)

  shape = Shape (images)
  height_i = Gather (shape, i1)
  width_i = Gather (shape, i2)
  height = Cast <to = 1> (height_i)
  width = Cast <to = 1> (width_i)
  ys_i = Range (i0, height_i, i1)
  xs_i = Range (i0, width_i, i1)
  ys_f = Cast <to = 1> (ys_i)
  xs_f = Cast <to = 1> (xs_i)
  ys = Unsqueeze (ys_f, outer)
  xs = Unsqueeze (xs_f, outer)
  in_row = ReduceMax <keepdims = 0> (mask, columns)
  in_column = ReduceMax <keepdims = 0> (mask, rows)
  y_after = Add (ys, one)
  x_after = Add (xs, one)
  y_left = Sub (height, ys)
  x_left = Sub (width, xs)
  y2_all = Mul (in_row, y_after)
  x2_all = Mul (in_column, x_after)
  y1_all = Mul (in_row, y_left)
  x1_all = Mul (in_column, x_left)
  y2 = ReduceMax <keepdims = 0> (y2_all, rows)
  x2 = ReduceMax <keepdims = 0> (x2_all, rows)
  y1_back = ReduceMax <keepdims = 0> (y1_all, rows)
  x1_back = ReduceMax <keepdims = 0> (x1_all, rows)
  y1 = Sub (height, y1_back)
  x1 = Sub (width, x1_back)
  x1u = Unsqueeze (x1, last)
  y1u = Unsqueeze (y1, last)
  x2u = Unsqueeze (x2, last)
  y2u = Unsqueeze (y2, last)
  unsorted = Concat <axis = 2> (x1u, y1u, x2u, y2u)

  scores, order = TopK <axis = 1> (found, k)
  order_u = Unsqueeze (order, last)
  order_4 = Expand (order_u, wide)
  boxes = GatherElements <axis = 1> (unsorted, order_4)
  valid = Greater (scores, zero)
  labels = Where (valid, order, none)
  valid_i = Cast <to = 6> (valid)
  num_detections = ReduceSum <keepdims = 1> (valid_i, rows)
}
"""

KEEP_RATIO = Preprocess(
    resize="keep_ratio",
    scale=(160, 96),
    input_hw=None,
    size_divisor=32,
    pad_value=(104, 116, 124),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
)
CARD = ModelCard(preprocess=KEEP_RATIO, class_names=("blue", "green", "red"), nms=NmsSettings(max_detections=3))

ModelFile = Callable[..., Path]
Rectangles = Callable[..., NDArray[np.uint8]]


@pytest.fixture
def card() -> ModelCard:
    return CARD


@pytest.fixture
def model_file(tmp_path: Path) -> ModelFile:
    """Writes the model file: `model_file(name=..., hw=..., card_text=..., **fields of the card)`."""

    def make(
        *, name: str = "model.onnx", hw: tuple[int, int] | None = None, card_text: str | None = None, **fields: object
    ) -> Path:
        model = onnx.parser.parse_model(GRAPH)
        if hw is not None:
            for at, side in zip((1, 2), hw, strict=True):
                model.graph.input[0].type.tensor_type.shape.dim[at].dim_value = side
        text = dataclasses.replace(CARD, **fields).to_json() if card_text is None else card_text
        if text:
            onnx.helper.set_model_props(model, {METADATA_KEY: text})
        onnx.checker.check_model(model, full_check=True)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def rectangles() -> Rectangles:
    """Draws: `rectangles((height, width), blue=(x1, y1, x2, y2), red=..., value=255)` on black."""

    def make(
        hw: tuple[int, int],
        *,
        blue: tuple[int, int, int, int] | None = None,
        green: tuple[int, int, int, int] | None = None,
        red: tuple[int, int, int, int] | None = None,
        value: int = 255,
    ) -> NDArray[np.uint8]:
        image = np.zeros((*hw, 3), np.uint8)
        for channel, box in enumerate((blue, green, red)):
            if box is not None:
                image[box[1] : box[3], box[0] : box[2], channel] = value
        return image

    return make
