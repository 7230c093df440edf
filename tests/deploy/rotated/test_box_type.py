from __future__ import annotations

import ld_deploy

# isort: split

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import get_box_type
from mmdet.structures.mask import BitmapMasks, PolygonMasks

import ld_deploy.models  # noqa: F401 - registers the box type
from ld_deploy.rotated.box_type import RotatedBoxes
from ld_deploy.rotated.boxes import corners
from ld_runtime.errors import ConfigError

BOX = [30.0, 20.0, 24.0, 8.0, 0.5]


def points_of(boxes: RotatedBoxes) -> Any:
    """Corners of the first box, sorted: the same for each of its writings."""
    return np.array(sorted(corners(boxes.tensor.double())[0].tolist()))


def mapped(matrix: Any) -> Any:
    points = corners(torch.tensor([BOX], dtype=torch.float64))[0].numpy()
    flat = np.hstack([points, np.ones((4, 1))]) @ np.asarray(matrix, dtype=np.float64).T
    return np.array(sorted((flat[:, :2] / flat[:, 2:]).tolist()))


def test_registered() -> None:
    assert get_box_type("rbox")[1] is RotatedBoxes
    boxes = RotatedBoxes([BOX])
    assert boxes.areas.tolist() == [192]
    assert (boxes.widths.tolist(), boxes.heights.tolist()) == ([24], [8])
    back = boxes.convert_to("hbox").convert_to("rbox")
    cos, sin = math.cos(0.5), math.sin(0.5)
    np.testing.assert_allclose(back.tensor, [[30, 20, 24 * cos + 8 * sin, 24 * sin + 8 * cos, 0]], rtol=1e-5)


@pytest.mark.parametrize(
    ("direction", "matrix"),
    [
        ("horizontal", [[-1, 0, 100], [0, 1, 0], [0, 0, 1]]),
        ("vertical", [[1, 0, 0], [0, -1, 60], [0, 0, 1]]),
        ("diagonal", [[-1, 0, 100], [0, -1, 60], [0, 0, 1]]),
    ],
)
def test_flips_move_the_corners_as_the_image(direction: str, matrix: Any) -> None:
    boxes = RotatedBoxes([BOX])
    boxes.flip_((60, 100), direction)
    np.testing.assert_allclose(points_of(boxes), mapped(matrix), atol=1e-4)
    boxes.flip_((60, 100), direction)
    np.testing.assert_allclose(boxes.tensor, [BOX], rtol=1e-5)
    with pytest.raises(ConfigError, match="direction"):
        boxes.flip_((60, 100), "sideways")


def test_moves_and_turns() -> None:
    boxes = RotatedBoxes([BOX])
    boxes.translate_((3, -4))
    assert boxes.tensor[0, :2].tolist() == [33, 16]
    boxes = RotatedBoxes([BOX])
    boxes.rotate_((10.0, 5.0), 50)
    matrix = np.vstack([cv2.getRotationMatrix2D((10.0, 5.0), -50, 1), [0, 0, 1]])
    np.testing.assert_allclose(points_of(boxes), mapped(matrix), atol=1e-4)
    projected = RotatedBoxes([BOX])
    projected.project_(matrix)
    np.testing.assert_allclose(points_of(projected), mapped(matrix), atol=1e-4)
    empty = RotatedBoxes(torch.zeros(0, 5))
    empty.project_(matrix)
    empty.rotate_((0.0, 0.0), 3)
    empty.flip_((2, 2))
    assert empty.tensor.shape == (0, 5)


def test_scaling() -> None:
    boxes = RotatedBoxes([BOX])
    boxes.rescale_((2.0, 2.0))
    np.testing.assert_allclose(boxes.tensor, [[60, 40, 48, 16, 0.5]], rtol=1e-6)
    boxes = RotatedBoxes([BOX])
    boxes.resize_((2.0, 2.0))
    np.testing.assert_allclose(boxes.tensor, [[30, 20, 48, 16, 0.5]], rtol=1e-6)
    # Upright boxes are stretched exactly; of a tilted one the side w is.
    upright = RotatedBoxes([[10.0, 10, 4, 2, 0], [10.0, 10, 4, 2, -math.pi / 2]])
    upright.rescale_((3.0, 0.5))
    np.testing.assert_allclose(upright.tensor[:, :4], [[30, 5, 12, 1], [30, 5, 2, 6]], rtol=1e-5)
    tilted = RotatedBoxes([BOX])
    tilted.rescale_((3.0, 0.5))
    side = np.array([24 * math.cos(0.5) * 3, 24 * math.sin(0.5) * 0.5])
    np.testing.assert_allclose(tilted.tensor[0, 2], np.hypot(*side), rtol=1e-5)
    np.testing.assert_allclose(tilted.tensor[0, 4], math.atan2(side[1], side[0]), rtol=1e-5)


def test_inside() -> None:
    boxes = RotatedBoxes([[5.0, 5, 20, 2, 0], [-1, 5, 8, 2, 0], [10, 10, 4, 4, 0.7]])
    assert boxes.is_inside((20, 20)).tolist() == [True, False, True]
    assert boxes.is_inside((20, 20), all_inside=True).tolist() == [False, False, True]
    assert boxes.is_inside((20, 20), allowed_border=2).tolist() == [True, True, True]
    assert boxes.is_inside((10, 20)).tolist() == [True, False, False]
    points = torch.tensor([[10.0, 12.5], [12.0, 12.0], [14.0, 6.0]])
    inside = boxes.find_inside_points(points)
    assert inside.tolist() == [[False, False, True], [False, False, False], [True, False, False]]
    assert boxes.find_inside_points(points, is_aligned=True).tolist() == [False, False, False]
    before = boxes.tensor.clone()
    boxes.clip_((1, 1))
    assert torch.equal(boxes.tensor, before)


def test_overlaps() -> None:
    one = RotatedBoxes([[0.0, 0, 4, 2, 0], [0, 0, 2, 4, math.pi / 2]])
    two = RotatedBoxes([[1.0, 0, 4, 2, math.pi]])
    np.testing.assert_allclose(RotatedBoxes.overlaps(one, two), [[0.6], [0.6]], rtol=1e-5)
    np.testing.assert_allclose(RotatedBoxes.overlaps(one, two, mode="iof"), [[0.75], [0.75]], rtol=1e-5)
    np.testing.assert_allclose(RotatedBoxes.overlaps(one, one, is_aligned=True), [1, 1], rtol=1e-5)
    assert RotatedBoxes.overlaps(one, two[:0]).shape == (2, 0)
    with pytest.raises(ConfigError, match="iou, iof"):
        RotatedBoxes.overlaps(one, two, mode="giou")


def test_masks() -> None:
    polygon = corners(torch.tensor([BOX], dtype=torch.float64))[0].numpy().ravel()
    boxes = RotatedBoxes.from_instance_masks(PolygonMasks([[polygon], [polygon, polygon + 2]], 60, 100))
    np.testing.assert_allclose(points_of(boxes), mapped(np.eye(3)), atol=1e-3)
    assert boxes.areas[1] > boxes.areas[0]
    bitmap = np.zeros((2, 60, 100), dtype=np.uint8)
    bitmap[0, 10:14, 20:30] = 1
    found = RotatedBoxes.from_instance_masks(BitmapMasks(bitmap, 60, 100))
    assert found.tensor[0, :2].tolist() == [25, 12]
    assert sorted(found.tensor[0, 2:4].tolist()) == [4, 10]
    assert not found.tensor[1].any()


def test_mmdet_pipeline_carries_the_box_with_the_object() -> None:
    # A bright bar; after resize, flip and padding the box must still lie on it.
    x, y = np.meshgrid(np.arange(100) + 0.5 - BOX[0], np.arange(60) + 0.5 - BOX[1])
    cos, sin = math.cos(BOX[4]), math.sin(BOX[4])
    bar = (abs(cos * x + sin * y) < BOX[2] / 2) & (abs(cos * y - sin * x) < BOX[3] / 2)
    image = np.repeat(bar[..., None] * np.uint8(255), 3, axis=2)
    steps = [
        {"type": "LoadAnnotations", "with_bbox": True, "box_type": "rbox"},
        {"type": "Resize", "scale": (150, 90), "keep_ratio": True},
        {"type": "RandomFlip", "prob": [1.0], "direction": ["vertical"]},
        {"type": "Pad", "size_divisor": 32},
        {"type": "PackDetInputs"},
    ]
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    start = {
        "img": image,
        "img_shape": (60, 100),
        "ori_shape": (60, 100),
        "img_path": "bar.png",
        "img_id": 0,
        "instances": [{"bbox": BOX, "bbox_label": 0, "ignore_flag": 0}],
    }
    packed = pipeline(start)
    boxes = packed["data_samples"].gt_instances.bboxes
    assert isinstance(boxes, RotatedBoxes)
    assert packed["inputs"].shape == (3, 96, 160)
    bright = np.argwhere(packed["inputs"][0].numpy() > 127)[:, ::-1].astype(np.float32) + 0.5
    inside = boxes.find_inside_points(torch.tensor(bright))
    assert inside.float().mean() > 0.95  # the rest is on the edge
    assert len(bright) == pytest.approx(boxes.areas.item(), rel=0.05)
