from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from ld_runtime.errors import ConfigError
from ld_runtime.rotated_tiles import Tile, TileDetections, merge_tiles, tiles_of


def test_tiles_by_hand() -> None:
    assert tiles_of((60, 100), size=60, overlap=20) == [Tile(0, 0, 60, 60), Tile(40, 0, 60, 60)]
    # 101 columns: a third tile, moved back to end with the image.
    assert [tile.x for tile in tiles_of((60, 101), size=60, overlap=20)] == [0, 40, 41]
    assert tiles_of((30, 40), size=60, overlap=20) == [Tile(0, 0, 30, 40)]
    assert tiles_of((60, 60), size=60, overlap=0) == [Tile(0, 0, 60, 60)]
    assert [(tile.x, tile.y) for tile in tiles_of((61, 61), size=60, overlap=0)] == [(0, 0), (1, 0), (0, 1), (1, 1)]


@pytest.mark.parametrize("hw", [(1, 1), (97, 345), (1024, 2048), (333, 60)])
@pytest.mark.parametrize(("size", "overlap"), [(60, 20), (60, 0), (64, 63)])
def test_tiles_cover_the_image_and_overlap(hw: tuple[int, int], size: int, overlap: int) -> None:
    if hw[0] > 1000 and overlap == 63:
        size, overlap = 640, 500
    covered = np.zeros(hw, dtype=bool)
    tiles = tiles_of(hw, size=size, overlap=overlap)
    for tile in tiles:
        part = covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
        assert part.shape == (tile.height, tile.width) == (min(size, hw[0]), min(size, hw[1]))
        part[:] = True
    assert covered.all()
    assert len(set(tiles)) == len(tiles)
    columns = sorted({tile.x for tile in tiles})
    assert all(after - before <= size - overlap for before, after in pairwise(columns))


def test_tiles_refuse_an_overlap_that_does_not_move() -> None:
    for overlap in (-1, 60):
        with pytest.raises(ConfigError, match="from 0 to below their size, 60"):
            tiles_of((100, 100), size=60, overlap=overlap)


def part(x: int, y: int, rows: list[tuple[float, ...]]) -> TileDetections:
    """Rows are cx cy w h angle, score, label."""
    values = np.array(rows, np.float32).reshape(-1, 7)
    return TileDetections(Tile(x, y, 60, 60), values[:, :5], values[:, 5], values[:, 6].astype(np.int64))


def test_merge_by_hand() -> None:
    left = part(0, 0, [(50, 30, 20, 10, 0.5, 0.6, 0), (50, 30, 20, 10, 0.5, 0.5, 1)])
    # In the second tile the same object, a pixel off and surer; and one of its own.
    right = part(40, 0, [(11, 30, 20, 10, 0.5, 0.9, 0), (30, 50, 8, 8, 0, 0.7, 0)])
    boxes, scores, labels = merge_tiles([left, right])
    np.testing.assert_allclose(boxes, [[51, 30, 20, 10, 0.5], [70, 50, 8, 8, 0], [50, 30, 20, 10, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.5])
    assert labels.tolist() == [0, 0, 1]
    again = merge_tiles([right, left])
    np.testing.assert_array_equal(again[0], boxes)
    assert [len(each) for each in merge_tiles([])] == [0, 0, 0]
    assert [len(each) for each in merge_tiles([part(0, 0, [])])] == [0, 0, 0]
    assert left.boxes[0, 0] == 50
