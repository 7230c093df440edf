"""`ld-deploy split-dota`: what it says, that it goes on where it stopped, and what it refuses."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ld_deploy.rotated.annotations import read_dota
from ld_deploy.rotated.dota_dataset import image_hw, images_in
from ld_deploy.rotated.split import SplitSummary, split_dota
from ld_runtime import cli
from ld_runtime.errors import ConfigError, DataError
from tests.json_output import json_of

CUT: dict[str, Any] = {"size": 60, "overlap": 20}
SUMMARY = SplitSummary(images=2, tiles=3, empty_tiles=1, lost_objects=1)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """One image of two tiles, with an object in the left one and one that is too long for any; one of one tile."""
    images, labels = tmp_path / "images", tmp_path / "labelTxt"
    images.mkdir()
    labels.mkdir()
    rng = np.random.default_rng(0)
    for name, width in (("a", 100), ("b", 60)):
        cv2.imwrite(str(images / f"{name}.png"), rng.integers(0, 255, (60, width, 3), dtype=np.uint8))
    lines = ("5 10 25 10 25 20 5 20 ship 0\n", "2 40 98 40 98 50 2 50 ship 0\n", "5 10 25 10 25 20 5 20 ship 0\n")
    (labels / "a.txt").write_text("".join(lines[:2]), encoding="utf-8")
    (labels / "b.txt").write_text(lines[2], encoding="utf-8")
    return images, labels, tmp_path / "tiles"


def test_an_interrupted_split_goes_on_where_it_stopped(folders: tuple[Path, Path, Path]) -> None:
    images, labels, out = folders
    told: list[tuple[int, int]] = []

    def interrupt(*what: int) -> None:
        told.append(what)  # type: ignore[arg-type] # two of them
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        split_dota(images, labels, out, **CUT, progress=interrupt)
    assert told == [(1, 2)]
    assert sorted(path.name for path in (out / "images").iterdir()) == ["a__0_0.png", "a__40_0.png"]
    first = out / "images" / "a__0_0.png"
    mark = np.zeros((60, 60, 3), np.uint8)
    cv2.imwrite(str(first), mark)
    (labels / "a.txt").write_text("", encoding="utf-8")  # annotations may have been mended meanwhile

    summary = split_dota(images, labels, out, **CUT, progress=lambda *what: told.append(what))
    assert told[1:] == [(1, 2), (2, 2)]
    assert summary == SplitSummary(images=2, tiles=3, empty_tiles=2, lost_objects=0)
    np.testing.assert_array_equal(cv2.imread(str(first)), mark)  # it was there
    assert read_dota(out / "labelTxt" / "a__0_0.txt") == []
    np.testing.assert_array_equal(cv2.imread(str(out / "images" / "b__0_0.png")), cv2.imread(str(images / "b.png")))
    assert len(read_dota(out / "labelTxt" / "b__0_0.txt")) == 1


@pytest.mark.parametrize("change", [{"size": 50}, {"overlap": 10}, {"min_share": 0.5}, {"suffix": ".bmp"}], ids=str)
def test_tiles_of_another_cut_are_not_mixed_in(folders: tuple[Path, Path, Path], change: dict[str, Any]) -> None:
    split_dota(*folders, **CUT)
    before = sorted(path for path in folders[2].rglob("*") if path.is_file())
    with pytest.raises(DataError, match=r"tiles has images that were cut otherwise: by \{.*; delete it, or name"):
        split_dota(*folders, **{**CUT, **change})
    assert sorted(path for path in folders[2].rglob("*") if path.is_file()) == before
    assert split_dota(*folders, **CUT) == SUMMARY


def test_images_of_others_and_of_another_folder_are_not_mixed_in(folders: tuple[Path, Path, Path]) -> None:
    images, labels, out = folders
    with pytest.raises(DataError, match="images that were not cut here"):
        split_dota(images, labels, images.parent, **CUT)  # whose `images` are the source
    split_dota(*folders, **CUT)
    images.rename(images.with_name("moved"))
    with pytest.raises(DataError, match="cut otherwise"):
        split_dota(images.with_name("moved"), labels, out, **CUT)


def test_a_refused_cut_leaves_the_folder_free(folders: tuple[Path, Path, Path]) -> None:
    with pytest.raises(ConfigError, match="from 0 to below their size, 60, got 60"):
        split_dota(*folders, size=60, overlap=60)
    assert split_dota(*folders, **CUT) == SUMMARY


def test_what_is_no_image(folders: tuple[Path, Path, Path]) -> None:
    images, labels, out = folders
    (images / "._a.png").write_bytes(b"a Mac's note")
    assert [path.name for path in images_in(images)] == ["a.png", "b.png"]
    for content, name in ((b"<html>", "page.jpg"), (b"", "empty.png")):
        (images / name).write_bytes(content)
        (labels / name).with_suffix(".txt").write_text("", encoding="utf-8")
        with pytest.raises(DataError, match=f"{name} cannot be read as an image"):
            split_dota(images, labels, out, **CUT)
        (images / name).unlink()
    (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:40])  # its header is whole
    (labels / "cut.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"cut\.png cannot be read as an image"):
        split_dota(images, labels, out, **CUT)
    (out.parent / "none").mkdir()
    with pytest.raises(DataError, match="none has no image"):
        split_dota(out.parent / "none", labels, out)


def test_a_scene_that_pillow_would_not_open(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), np.zeros((1, 1, 3), np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[:16] + struct.pack(">II", 30000, 20000) + content[24:])
    assert image_hw(path) == (20000, 30000)
    cv2.imwrite(str(tmp_path / "small.bmp"), np.zeros((4, 7, 3), np.uint8))
    assert image_hw(tmp_path / "small.bmp") == (4, 7)


def test_the_command(
    folders: tuple[Path, Path, Path], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    images, labels, out = folders
    arguments = ["split-dota", str(images), str(labels), "-o", str(out), "--size", "60", "--overlap", "20"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert not stopped.value.code
    text = capfd.readouterr().out
    assert "images" in text
    assert "2/2" in text
    assert f"{out}: 3 tiles of 2 images, 1 without an object; objects that no tile holds enough of: 1" in text
    found = json_of(capfd, *arguments)
    assert found == {"output": str(out), "images": 2, "tiles": 3, "empty_tiles": 1, "lost_objects": 1}
    with pytest.raises(SystemExit) as stopped:
        cli.main([*arguments, "--min-share", "0.5"])
    assert stopped.value.code == 2
    assert "cut otherwise" in capfd.readouterr().err
