"""Tiles: their places by hand, which boxes a border costs, and rendered objects across seams."""

import numpy as np
import pytest

from ld_runtime import Detector
from ld_runtime.errors import ConfigError, InputError
from ld_runtime.tiling import (
    TileGrid,
    Tiling,
    detect_tiled,
    held_by_another,
    inside_a_larger_box,
    native_tile_hw,
    tile_boxes,
    tile_grid,
    touches_inner_border,
)


def test_tiles_by_hand() -> None:
    # 250 pixels in tiles of 100 that share 20 at least: 150 left to go in steps of 80 at most, so two of 75.
    np.testing.assert_array_equal(
        tile_boxes((100, 250), (100, 100), overlap_hw=(20, 20)),
        [[0, 0, 100, 100], [75, 0, 175, 100], [150, 0, 250, 100]],
    )
    np.testing.assert_array_equal(
        tile_boxes((150, 100), (100, 200), overlap_hw=(0, 0)), [[0, 0, 100, 100], [0, 50, 100, 150]]
    )
    np.testing.assert_array_equal(tile_boxes((100, 180), (100, 100), overlap_hw=(20, 20))[:, 0], [0, 80])
    np.testing.assert_array_equal(tile_boxes((100, 181), (100, 100), overlap_hw=(20, 20))[:, 0], [0, 40, 81])
    np.testing.assert_array_equal(tile_boxes((7, 9), (100, 100), overlap_hw=(50, 50)), [[0, 0, 9, 7]])
    assert tile_boxes((100, 180), (100, 120), overlap_hw=(90, 20))[:, 0].tolist() == [0, 60]  # each axis by its own


@pytest.mark.parametrize("image_hw", [(100, 100), (101, 333), (99, 640), (512, 513)])
@pytest.mark.parametrize("shared", [0, 20, 60, 99])
def test_tiles_cover_every_pixel_and_share_enough(image_hw: tuple[int, int], shared: int) -> None:
    tiles = tile_boxes(image_hw, (100, 120), overlap_hw=(shared, shared))
    covered = np.zeros(image_hw, bool)
    for x1, y1, x2, y2 in tiles:
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert (tiles[:, 2:] <= image_hw[::-1]).all()
    assert (tiles[:, :2] >= 0).all()
    assert len(np.unique(tiles[:, 2:] - tiles[:, :2], axis=0)) == 1
    lefts = np.unique(tiles[:, 0])
    width = tiles[0, 2] - tiles[0, 0]
    assert (lefts[:-1] + width - lefts[1:] >= shared).all()
    assert np.ptp(np.diff(lefts)) <= 1 if len(lefts) > 1 else True  # evenly spaced


def test_the_overlap_by_the_largest_object(model_file) -> None:
    detector = Detector(model_file())  # takes 96 x 160
    assert tile_grid(detector, Tiling()) == TileGrid((96, 160), (20, 32))  # a fifth, rounded up
    assert tile_grid(detector, Tiling(overlap=0)).held_px == 0
    grid = tile_grid(detector, Tiling(tile=100, largest_px=40))
    assert grid == TileGrid((100, 100), (44, 44))  # 2 pixels at each border are a cut
    assert grid.held_px == 40
    assert tile_grid(detector, Tiling(largest_px=91)).overlap_hw == (95, 95)
    with pytest.raises(ConfigError, match=r"160x96 pixels cannot hold objects of 92: give a --tile .* larger than 96"):
        tile_grid(detector, Tiling(largest_px=92))
    with pytest.raises(ConfigError, match="both say how much tiles share"):
        Tiling(overlap=0.2, largest_px=40)


@pytest.mark.parametrize("side", [1, 17, 40, 60])
def test_an_object_of_the_largest_size_is_uncut_in_some_tile(side: int) -> None:
    for length in (101, 250, 333):
        hw = (length, length)
        tiles = TileGrid((100, 100), (side + 4, side + 4)).boxes(hw)
        for at in range(length - side + 1):
            box = np.array([[at, at, at + side, at + side]], np.float32)
            uncut = [
                (box[:, :2] >= tile[:2]).all()
                and (box[:, 2:] <= tile[2:]).all()
                and not touches_inner_border(box, tile, image_hw=hw)[0]
                for tile in tiles
            ]
            assert any(uncut), (length, at)


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
    tiles = tile_boxes((100, 180), (100, 100), overlap_hw=(20, 20))  # x from 0 to 100, from 80 to 180
    boxes = np.array([[83, 10, 100, 30], [82, 10, 100, 30], [70, 10, 100, 30]], np.float32)
    # The second tile begins at 80: a box there within 2 pixels is cut by it as well.
    assert held_by_another(boxes, 0, tiles, image_hw=(100, 180)).tolist() == [True, False, False]
    assert not held_by_another(boxes, 0, tiles[:1], image_hw=(100, 180)).any()


def test_which_parts_lie_in_a_larger_box() -> None:
    boxes = np.array([[0, 0, 100, 10], [60, 0, 110, 10], [59, 0, 110, 10], [0, 0, 50, 10], [0, 0, 50, 10]], np.float32)
    scores = np.array([0.4, 0.8, 0.5, 0.5, 0.5], np.float32)
    labels = np.array([1, 1, 1, 2, 1])
    cut = np.array([False, True, True, True, False])
    tile = np.array([0, 1, 1, 1, 1])

    def inside() -> list[bool]:
        return inside_a_larger_box(boxes, scores, labels, cut=cut, tile=tile).tolist()

    # 40 of 50 are exactly 0.8; 41 of 51 are 0.804; the fourth is of another class; the last is whole itself.
    assert inside() == [False, True, True, False, False]
    scores[1] = 0.81  # more than twice as sure as the larger one
    assert not inside()[1]
    scores[1] = 0.5
    tile[1:3] = 0  # one tile has seen all three: they are three objects
    assert not any(inside())
    tile[1:3] = 1
    boxes[1] = [61, 0, 111, 10]
    assert not inside()[1]
    cut[0] = True  # a larger part replaces a smaller one, and not the other way round
    assert inside() == [False, False, True, False, False]
    assert inside_a_larger_box(boxes[:0], scores[:0], labels[:0], cut=cut[:0], tile=tile[:0]).shape == (0,)


def test_which_parts_lie_in_a_larger_rotated_box() -> None:
    boxes = np.array([[50, 5, 100, 10, 0], [85, 5, 50, 10, 0], [86, 5, 50, 10, 0]], np.float32)
    scores, labels = np.array([0.5, 0.5, 0.5], np.float32), np.array([1, 1, 1])
    found = inside_a_larger_box(boxes, scores, labels, cut=np.array([False, True, True]), tile=np.array([0, 1, 1]))
    assert found.tolist() == [False, True, False]  # 40 of 50, to rounding, and 39


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
    image = rectangles((96, 320), blue=(50, 20, 270, 70))
    parts = detect_tiled(detector, image, tiling=Tiling(overlap=0.1))
    assert len(parts) > 1  # parts of it, rather than nothing
    assert (parts.boxes[:, 0].min(), parts.boxes[:, 2].max()) == (50, 270)
    whole = detect_tiled(detector, image, tiling=Tiling(overlap=0.1, whole=True))
    np.testing.assert_allclose(whole.boxes, [[50, 20, 270, 70]], atol=1)


def test_settings_hold_for_the_image(model_file, rectangles) -> None:
    image = rectangles((96, 600), blue=(5, 20, 45, 70))
    image[20:70, 300:340, 1] = 220
    image[20:70, 540:580, 2] = 240
    every = detect_tiled(Detector(model_file()), image)
    assert every.labels.tolist() == [0, 2, 1]  # by score over all tiles
    one_a_tile = Detector(model_file(), max_detections=1)
    assert len(one_a_tile(image)) == 1
    assert detect_tiled(one_a_tile, image).labels.tolist() == [0, 2, 1]  # no two of them are in one tile
    assert detect_tiled(Detector(model_file(), score_threshold=0.95), image).labels.tolist() == [0]
    assert len(detect_tiled(Detector(model_file()), rectangles((96, 600)))) == 0
    for wrong in ({"tile": 31}, {"overlap": 1.0}, {"overlap": -0.1}, {"largest_px": 0}):
        with pytest.raises(ConfigError):
            Tiling(**wrong)
    with pytest.raises(InputError, match="COLOR_GRAY2BGR"):
        detect_tiled(Detector(model_file()), image[:, :, 0])
