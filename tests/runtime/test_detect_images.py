"""Folders of images: killed and gone on with, refused files, two runs at once, a full disk, memory that stays."""

import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest

from ld_runtime import Detector, detect_images
from ld_runtime.detect_images import ImageSettings, ImageSummary, detect_in_images, free_name
from ld_runtime.detection_journal import JOURNAL_FILE
from ld_runtime.errors import ConfigError, LdDeployError
from ld_runtime.media import image_names
from ld_runtime.preprocess import decode
from tests.runtime.coco_cases import coco_document
from tests.runtime.folder_run import ROOT, compared, detect


@pytest.fixture
def folder(tmp_path: Path, rectangles) -> Path:
    """60 images of two shapes; image i has a blue rectangle i pixels from the left."""
    images = tmp_path / "images"
    images.mkdir()
    for index in range(60):
        hw = (96, 160) if index % 3 else (160, 96)
        cv2.imwrite(str(images / f"{index:02}.png"), rectangles(hw, blue=(index, 20, index + 30, 60)))
    return images


def run(model: Path, source: Path, out: Path, **settings: object) -> ImageSummary:
    detector = Detector(model)
    names = image_names(source)
    made = ImageSettings(**settings)  # type: ignore[arg-type]
    return detect_in_images(detector, str(source), names, out, model_sha256="ab", settings=made)


# Kills itself in the middle of the line that it is told.
KILLED = """
import os, signal, sys
from ld_runtime import cli
from ld_runtime.detection_journal import DetectionJournal

left, append = int(sys.argv[1]), DetectionJournal.append

def append_or_die(journal, entry):
    global left
    left -= 1
    if not left:
        os.write(journal._file, entry.to_line().encode()[:-7])
        os.kill(os.getpid(), signal.SIGKILL)
    append(journal, entry)

DetectionJournal.append = append_or_die
cli.main(["detect", *sys.argv[2:]])
"""


def killed(model: Path, folder: Path, out: Path, *, at: int) -> None:
    command = [sys.executable, "-c", KILLED, str(at), str(model), str(folder), "-o", str(out)]
    paths = os.pathsep.join(map(str, (ROOT / "runtime", ROOT)))
    done = subprocess.run(command, capture_output=True, check=False, env=os.environ | {"PYTHONPATH": paths})
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_three_times_it_ends_as_if_it_had_not_been(folder: Path, model_file, tmp_path: Path) -> None:
    model = model_file()
    assert detect(model, folder, tmp_path / "alone").status == 0
    for at, lines in ((3, 2), (20, 21), (30, 50)):
        killed(model, folder, tmp_path / "killed", at=at)
        found = (tmp_path / "killed" / JOURNAL_FILE).read_bytes()
        assert found.count(b"\n") == 1 + lines  # it went on where it stopped, and the last line is not whole
        assert not found.endswith(b"\n")
        assert not (tmp_path / "killed" / "detections.json").exists()
    (tmp_path / "killed" / "annotated" / ".59.123.jpg").touch()  # as a killed run leaves it
    assert detect(model, folder, tmp_path / "killed").status == 0
    found = compared(tmp_path / "alone", tmp_path / "killed")
    assert found == {
        "images": 60,
        "detections": 60,
        "lost": 0,
        "repeated": 0,
        "identical": True,
        "pictures": 60,
        "pictures_identical": True,
    }
    assert sorted(one.name for one in (tmp_path / "killed").iterdir()) == ["annotated", "detections.json"]
    assert len(list((tmp_path / "killed" / "annotated").iterdir())) == 60


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 1), (4, 3), (100, 2)])
def test_the_file_is_what_single_calls_give(folder, model_file, tmp_path, batch_size: int, workers: int) -> None:
    model = model_file()
    summary = run(model, folder, tmp_path / "out", batch_size=batch_size, workers=workers, annotate=False)
    assert (summary.images, summary.detections, summary.refused, summary.resumed) == (60, 60, 0, 0)
    detector, names = Detector(model), image_names(folder)
    seen = [(name, cv2.imread(name).shape[:2]) for name in names]
    expected = coco_document(seen, list(map(detector, names)), class_names=detector.class_names)
    assert json.loads((tmp_path / "out" / "detections.json").read_text()) == expected


def test_only_what_is_not_done_is_done(folder: Path, model_file, tmp_path: Path, monkeypatch) -> None:
    model, out = model_file(), tmp_path / "out"
    (folder / "30.png").write_bytes(b"no image")
    write = cv2.imencode
    calls = count()  # in two threads: a count of the files there would be too late

    def full(suffix: str, image: np.ndarray) -> object:
        return (False, None) if next(calls) >= 40 else write(suffix, image)

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imencode", full)
        with pytest.raises(LdDeployError, match="cannot write"):
            run(model, folder, out)
    lines = (out / JOURNAL_FILE).read_text().splitlines()
    done = [json.loads(line)["name"] for line in lines[1:]]
    assert done == image_names(folder)[: len(done)]  # in order, without a gap
    assert 20 < len(done) <= 41
    for line in lines[1:]:  # a picture was there before its line
        assert "refused" in line or (out / "annotated" / json.loads(line)["picture"]).exists()
    for name in done:
        Path(name).unlink()
    summary = run(model, folder, out)  # with those gone it would lose them if it looked at them again
    assert (summary.images, summary.refused, summary.resumed) == (59, 1, len(done))
    assert summary.reasons[0].startswith(f"{folder / '30.png'} is no image")
    assert (out / "refused.txt").read_text().count("\n") == 1
    assert len(list((out / "annotated").iterdir())) == 59


def test_other_settings_are_refused_and_restart_begins_again(folder: Path, model_file, tmp_path: Path) -> None:
    model, out = model_file(), tmp_path / "out"
    killed(model, folder, out, at=5)
    before = (out / JOURNAL_FILE).read_bytes()
    with pytest.raises(ConfigError, match=r"score_threshold was 0\.3, is 0\.05.*--restart"):
        run(model, folder, out)
    assert (out / JOURNAL_FILE).read_bytes() == before
    summary = run(model, folder, out, restart=True)
    assert (summary.images, summary.resumed) == (60, 0)
    assert not (out / JOURNAL_FILE).exists()


def test_results_of_two_runs_are_not_mixed(folder: Path, model_file, tmp_path: Path) -> None:
    model, out = model_file(), tmp_path / "out"
    from ld_runtime.detection_journal import DetectionJournal, JournalHeader

    with DetectionJournal(out / JOURNAL_FILE, JournalHeader("ab", "x")):
        command = [sys.executable, "-m", "ld_runtime.cli", "detect", str(model), str(folder), "-o", str(out)]
        paths = os.pathsep.join(map(str, (ROOT / "runtime", ROOT)))
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": paths}
        )
    assert done.returncode == 2
    assert "another run is writing into" in done.stderr


@pytest.mark.parametrize(("max_bytes", "most"), [(1, 1), (37_000_000, 2), (55_000_000, 3)])
def test_large_images_in_flight_are_bounded_by_their_bytes(
    model_file, rectangles, tmp_path: Path, monkeypatch, *, max_bytes: int, most: int
) -> None:
    """Eight images of 18 MB of pixels; counted are the decoded ones that somebody holds."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), rectangles((2000, 3000), blue=(300, 300, 900, 900)))
    for number in range(1, 8):
        (tmp_path / "images" / f"{number}.png").hardlink_to(tmp_path / "images" / "0.png")
    live, seen, lock = [0], [], threading.Lock()

    def change(by: int) -> None:
        with lock:
            live[0] += by
            seen.append(live[0])

    def counted(name: str) -> np.ndarray:
        change(1)
        image = decode(name)
        weakref.finalize(image, change, -1)
        return image

    monkeypatch.setattr(detect_images, "decode", counted)
    summary = run(model_file(), tmp_path / "images", tmp_path / "out", max_bytes=max_bytes, workers=3)
    assert (summary.images, summary.detections, summary.refused) == (8, 8, 0)
    assert max(seen) == most
    with pytest.raises(ConfigError, match="need 1 byte or more, got 0"):
        ImageSettings(max_bytes=0)


def test_free_names() -> None:
    assert free_name("a", set()) == "a.jpg"
    assert free_name("a", {"a.jpg", "a_2.jpg", None}) == "a_3.jpg"


def test_memory_does_not_hold_images(model_file, tmp_path: Path) -> None:
    """600 images of 1.5 MB each, decoded, would be 900 MB."""
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.png"), np.zeros((500, 1000, 3), np.uint8))
    few = detect(model_file(), tmp_path / "images", tmp_path / "few", options=("--no-images",))
    for number in range(1, 600):
        (tmp_path / "images" / f"{number}.png").hardlink_to(tmp_path / "images" / "0.png")
    many = detect(model_file(), tmp_path / "images", tmp_path / "many", options=("--no-images",))
    assert (few.status, many.status) == (0, 0)
    assert many.peak_rss_mb < few.peak_rss_mb + 60
