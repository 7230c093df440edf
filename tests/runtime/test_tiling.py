"""Tiles: their places by hand, which boxes a border costs, and rendered objects across seams."""

import numpy as np
import pytest

from ld_runtime import Detector
from ld_runtime.errors import ConfigError, InputError
from ld_runtime.tiling import (
    Tiling,
    detect_tiled,
    held_by_another,
    inside_a_whole_box,
    native_tile_hw,
    tile_boxes,
    touches_inner_border,
)


def test_tiles_by_hand() -> None:
    # 250 pixels in tiles of 100 with a fifth shared: 0, 80, and the last shifted from 160 to 150.
    np.testing.assert_array_equal(
        tile_boxes((100, 250), (100, 100), overlap=0.2), [[0, 0, 100, 100], [80, 0, 180, 100], [150, 0, 250, 100]]
    )
    np.testing.assert_array_equal(tile_boxes((150, 100), (100, 200), overlap=0), [[0, 0, 100, 100], [0, 50, 100, 150]])
    np.testing.assert_array_equal(tile_boxes((100, 180), (100, 100), overlap=0.2)[:, 0], [0, 80])
    np.testing.assert_array_equal(tile_boxes((100, 181), (100, 100), overlap=0.2)[:, 0], [0, 80, 81])
    np.testing.assert_array_equal(tile_boxes((7, 9), (100, 100), overlap=0.5), [[0, 0, 9, 7]])


@pytest.mark.parametrize("image_hw", [(100, 100), (101, 333), (99, 640), (512, 513)])
@pytest.mark.parametrize("overlap", [0, 0.2, 0.5, 0.99])
def test_tiles_cover_every_pixel_and_share_enough(image_hw: tuple[int, int], overlap: float) -> None:
    tiles = tile_boxes(image_hw, (100, 120), overlap=overlap)
    covered = np.zeros(image_hw, bool)
    for x1, y1, x2, y2 in tiles:
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert (tiles[:, 2:] <= image_hw[::-1]).all()
    assert (tiles[:, :2] >= 0).all()
    assert len(np.unique(tiles[:, 2:] - tiles[:, :2], axis=0)) == 1
    lefts = np.unique(tiles[:, 0])
    width = tiles[0, 2] - tiles[0, 0]
    assert (lefts[:-1] + width - lefts[1:] >= np.floor(overlap * width)).all()


def test_which_boxes_touch_an_inner_border() -> None:
    boxes = np.array(
        [[0, 10, 20, 30], [90, 10, 98, 30], [90, 10, 97.9, 30], [40, 0, 60, 9], [40, 50, 60, 99]], np.float32
    )
    tile = np.array([0, 0, 100, 100])
    # The image goes on to the right only: within 2 pixels of x = 100 a box is cut.
    found = touches_inner_border(boxes, tile, image_hw=(100, 180))
    assert found.tolist() == [False, True, False, False, False]
    assert touches_inner_border(boxes, tile, image_hw=(150, 100)).tolist() == [False, False, False, False, True]
    assert not touches_inner_border(boxes, tile, image_hw=(100, 100)).any()
    shifted = touches_inner_border(boxes + np.float32(50), tile + 50, image_hw=(150, 150))
    assert shifted.tolist() == [True, False, False, True, False]


def test_which_boxes_another_tile_holds() -> None:
    tiles = tile_boxes((100, 180), (100, 100), overlap=0.2)  # x from 0 to 100, from 80 to 180
    boxes = np.array([[83, 10, 100, 30], [82, 10, 100, 30], [70, 10, 100, 30]], np.float32)
    # The second tile begins at 80: a box there within 2 pixels is cut by it as well.
    assert held_by_another(boxes, 0, tiles, image_hw=(100, 180)).tolist() == [True, False, False]
    assert not held_by_another(boxes, 0, tiles[:1], image_hw=(100, 180)).any()


def test_which_parts_lie_in_a_whole_box() -> None:
    boxes = np.array([[0, 0, 100, 10], [60, 0, 110, 10], [59, 0, 110, 10], [0, 0, 50, 10], [0, 0, 50, 10]], np.float32)
    labels = np.array([1, 1, 1, 2, 1])
    cut = np.array([False, True, True, True, False])
    # 40 of 50 are exactly 0.8; 41 of 51 are 0.804; the third is of another class; the last is whole itself.
    assert inside_a_whole_box(boxes, labels, cut=cut).tolist() == [False, True, True, False, False]
    boxes[1] = [61, 0, 111, 10]
    assert not inside_a_whole_box(boxes, labels, cut=cut)[1]
    assert inside_a_whole_box(boxes[:0], labels[:0], cut=cut[:0]).shape == (0,)


def test_an_image_of_one_tile_is_run_as_it_is(model_file, rectangles) -> None:
    detector = Detector(model_file())
    assert native_tile_hw(detector) == (96, 160)
    for hw in ((96, 160), (50, 70), (96, 100)):
        image = rectangles(hw, blue=(3, 5, 40, 45), red=(10, 20, 60, 49))
        plain, tiled = detector(image), detect_tiled(detector, image)
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(tiled, name), getattr(plain, name))


@pytest.mark.parametrize("x", range(0, 420, 7))
def test_an_object_across_a_seam_gives_one_whole_box(model_file, rectangles, x: int) -> None:
    """Tiles of 160 that share 40 at least; the object is 30 wide, so that the overlap holds it wherever it lies."""
    detector = Detector(model_file())
    box = (x, 20, x + 30, 70)
    found = detect_tiled(detector, rectangles((96, 450), green=box), tiling=Tiling(overlap=0.25), batch_size=2)
    np.testing.assert_allclose(found.boxes, [box], atol=1e-3)
    assert found.labels.tolist() == [1]


def test_a_corner_of_four_tiles(model_file, rectangles) -> None:
    detector = Detector(model_file())
    tiling = Tiling(tile=96, overlap=0.5)
    for at in range(30, 60, 3):
        box = (at, at + 4, at + 40, at + 36)
        found = detect_tiled(detector, rectangles((180, 200), red=box), tiling=tiling)
        np.testing.assert_allclose(found.boxes, [box], atol=1e-3)


def test_an_object_larger_than_the_overlap(model_file, rectangles) -> None:
    detector = Detector(model_file())
    image = rectangles((96, 320), blue=(100, 20, 220, 70))
    parts = detect_tiled(detector, image, tiling=Tiling(overlap=0.1))
    assert len(parts) > 1  # parts of it, rather than nothing
    assert (parts.boxes[:, 0].min(), parts.boxes[:, 2].max()) == (100, 220)
    whole = detect_tiled(detector, image, tiling=Tiling(overlap=0.1, whole=True))
    np.testing.assert_allclose(whole.boxes, [[100, 20, 220, 70]], atol=1)


def test_settings_hold_for_the_image(model_file, rectangles) -> None:
    image = rectangles((96, 600), blue=(5, 20, 45, 70))
    image[20:70, 300:340, 1] = 220
    image[20:70, 540:580, 2] = 240
    every = detect_tiled(Detector(model_file()), image)
    assert every.labels.tolist() == [0, 2, 1]  # by score over all tiles
    assert detect_tiled(Detector(model_file(), max_detections=2), image).labels.tolist() == [0, 2]
    assert detect_tiled(Detector(model_file(), score_threshold=0.95), image).labels.tolist() == [0]
    assert len(detect_tiled(Detector(model_file()), rectangles((96, 600)))) == 0
    for wrong in ({"tile": 31}, {"overlap": 1.0}, {"overlap": -0.1}):
        with pytest.raises(ConfigError):
            Tiling(**wrong)
    with pytest.raises(InputError, match="COLOR_GRAY2BGR"):
        detect_tiled(Detector(model_file()), image[:, :, 0])
