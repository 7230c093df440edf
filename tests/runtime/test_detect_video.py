"""`detect_in_videos` and `ld-deploy detect` on videos: what is written, and that nothing hangs."""

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import cv2
import pytest

from ld_runtime import Detector, cli
from ld_runtime.detect_video import VideoSettings, detect_in_videos
from ld_runtime.errors import InputError, LdDeployError
from ld_runtime.media import open_video
from ld_runtime.video_reader import ReadSettings
from tests.runtime.video_cases import no_thread_left, write_frames


@pytest.fixture
def detector(model_file) -> Detector:
    return Detector(model_file())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "clip.mp4", range(0, 2000, 100), sound="aac")


def run(detector: Detector, clip: Path, folder: Path, **more):
    return detect_in_videos(detector, [str(clip)], folder, model_sha256="ab", **more)


def test_everything_is_written(detector: Detector, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with no_thread_left():
        summary = run(detector, clip, out, settings=VideoSettings(read=ReadSettings(every=2), track=True))
    assert (summary.frames, summary.detections, summary.stopped) == (10, 10, False)
    content = json.loads((out / "detections.json").read_text())
    assert [one["file_name"] for one in content["images"]] == [f"{clip}#{index}" for index in range(0, 20, 2)]
    assert [one["time_s"] for one in content["images"]] == pytest.approx([0.2 * index for index in range(10)])
    ids = {one["track_id"] for one in content["annotations"] if "track_id" in one}
    assert len(ids) == 1  # one rectangle that moves
    assert sum("track_id" in one for one in content["annotations"]) >= 7
    with open_video(out / "annotated" / "clip.mp4") as video:
        found = [frame.pts * frame.time_base for frame in video]  # type: ignore[operator]
    assert found == [Fraction(index, 5) for index in range(10)]
    with av.open(str(out / "annotated" / "clip.mp4")) as container:
        assert container.streams.audio
    assert sorted(one.name for one in out.iterdir()) == ["annotated", "detections.json"]


def test_two_videos_of_one_name(detector: Detector, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_frames(tmp_path / "other" / "clip.mp4", range(0, 500, 100))
    summary = detect_in_videos(
        detector, [str(clip), str(other)], tmp_path / "out", model_sha256="", settings=VideoSettings(batch_size=4)
    )
    assert [report.frames for report in summary.sources] == [20, 5]
    names = sorted(one.name for one in (tmp_path / "out" / "annotated").iterdir())
    assert names == ["clip.mp4", "clip_2.mp4"]
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [one["id"] for one in content["images"]] == list(range(25))


class OwnError(Exception):
    pass


@pytest.mark.parametrize("place", ["draw", "write", "journal", "show", "advance", "coco"])
@pytest.mark.parametrize("error", [OwnError("own"), LdDeployError("of the tree")], ids=["own", "tree"])
def test_a_failure_anywhere_comes_out_and_nothing_hangs(  # noqa: PLR0917 - fixtures
    place: str,
    error: Exception,
    detector: Detector,
    clip: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_, **__):
        raise error

    targets = {
        "draw": ("ld_runtime.draw.draw", fail),
        "write": ("ld_runtime.video_writer.VideoWriter.__call__", fail),
        "journal": ("ld_runtime.detection_journal.DetectionJournal.append", fail),
        "coco": ("ld_runtime.detect_video.write_coco", fail),
    }
    if place in targets:
        monkeypatch.setattr(*targets[place])
    more = {place: fail} if place in ("show", "advance") else {}
    with no_thread_left(), pytest.raises(type(error)) as caught:
        run(detector, clip, tmp_path / "out", **more)
    assert caught.value is error
    assert not (tmp_path / "out" / "detections.json").exists()


def test_what_was_seen_is_kept(detector: Detector, clip: Path, tmp_path: Path) -> None:
    def interrupt(_: object) -> bool:
        raise KeyboardInterrupt

    for number, show in enumerate((lambda _: False, interrupt)):
        out = tmp_path / str(number)
        with no_thread_left():
            summary = run(detector, clip, out, show=show)
        assert summary.stopped
        assert len(json.loads((out / "detections.json").read_text())["images"]) == summary.frames == 1
        with open_video(out / "annotated" / "clip.mp4") as video:
            assert len(list(video)) == 1


def test_a_truncated_video_keeps_its_frames(detector: Detector, clip: Path, tmp_path: Path) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 3 // 4])
    with no_thread_left(), pytest.raises(InputError, match="truncated"):
        run(detector, clip, tmp_path / "out")
    frames = len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"])
    assert 0 < frames < 20
    with open_video(tmp_path / "out" / "annotated" / "clip.mp4") as video:
        assert len(list(video)) == frames


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    try:
        cli.main(["detect", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_the_command_with_a_window(model_file, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    out = tmp_path / "out"
    assert command(monkeypatch, model_file(), clip, "-o", out, "--show", "--track", "--every", 2) == 0
    assert len(json.loads((out / "detections.json").read_text())["images"]) == 10
    assert not pygame.display.get_init()


def test_q_ends_the_run(detector: Detector, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pygame = pytest.importorskip("pygame")
    from ld_runtime.window import Window

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    with Window("test") as window:
        shown = 0

        def show(image) -> bool:
            nonlocal shown
            shown += 1
            if shown == 3:
                pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_q))
            return window.show(image)

        summary = run(detector, clip, tmp_path / "out", show=show)
    assert summary.stopped
    assert summary.frames == 3


def test_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame")
    from ld_runtime.window import Window

    monkeypatch.setenv("SDL_VIDEODRIVER", "x11")
    monkeypatch.setenv("DISPLAY", ":77")
    with pytest.raises(LdDeployError, match="no display to show a window on"):
        Window("test")


@pytest.mark.parametrize(("module", "extra"), [("trackers", "track"), ("pygame", "window")])
def test_without_the_library(module: str, extra: str) -> None:
    what = {
        "track": "tracking import Tracker as T; T(fps=1, score_threshold=0.1)",
        "window": "window import Window as T; T('')",
    }
    first, second = what[extra].split("; ")
    program = (
        f"import sys; sys.modules[{module!r}] = None\nfrom ld_runtime.{first}\n"
        f"from ld_runtime.errors import BackendMissingError\n"
        f"try:\n    {second}\nexcept BackendMissingError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert f"pip install 'ld-deploy[{extra}]'" in done.stdout


def test_video_options_are_refused_for_images(
    model_file, tmp_path: Path, rectangles, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), rectangles((96, 160)))
    assert command(monkeypatch, model_file(), tmp_path / "a.png", "-o", tmp_path / "out", "--track") == 2
    assert "are for videos" in capsys.readouterr().err
