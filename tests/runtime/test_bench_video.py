"""`ld-deploy bench-video`: what it counts, and what its JSON says."""

import json
from pathlib import Path
from typing import ClassVar

import pytest

from ld_runtime import Detector, cli
from ld_runtime.bench_video import Memory, measure_video, repeat_video
from ld_runtime.errors import InputError
from ld_runtime.media import open_video
from tests.runtime.video_cases import no_thread_left, write_frames


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_frames(tmp_path / "clip.mp4", range(0, 700, 100))


def test_memory_by_hand() -> None:
    assert Memory.of([(10, 1.0)]) is None
    # The first sample is of the first tenth; then 2 MB in 100 frames.
    assert Memory.of([(1, 500.0), (100, 10.0), (200, 12.0), (300, 14.0)]) == Memory(
        first_mb=10.0, last_mb=14.0, max_mb=500.0, slope_mb_per_1000_frames=pytest.approx(20.0), samples=4
    )


def test_a_repeated_video(clip: Path, tmp_path: Path) -> None:
    path = repeat_video(clip, tmp_path / "long.mp4", frames=17)
    with open_video(path) as video:
        times = [frame.time_s for frame in video]
    assert times == pytest.approx([index / 10 for index in range(17)])
    with pytest.raises(InputError, match="No such file"):
        repeat_video(tmp_path / "gone.mp4", tmp_path / "x.mp4", frames=3)


class Loop:
    name = "loop"
    settings: ClassVar = {"x": 1}

    def run(self, video: Path, output: Path) -> tuple[int, int]:
        with open_video(video) as opened:
            frames = len(list(opened))
        output.write_bytes(b"")
        return frames, 3 * frames


def test_counts(model_file, clip: Path) -> None:
    with no_thread_left():
        model, loop = measure_video(
            [("model", Detector(model_file()), {"a": 1})],
            clip,
            frames=40,
            rounds=2,
            references=[Loop()],
            reference_frames=6,
        )
    assert (model.name, model.settings, model.frames, model.mean_detections) == ("model", {"a": 1}, 40, 1.0)
    assert model.engine_fps is not None
    assert model.ratio is not None
    assert len(model.ratios) == 2
    assert model.ratio == pytest.approx(sum(model.ratios) / 2)
    assert min(model.ratios) <= model.fps / model.engine_fps <= max(model.ratios)
    assert 0 < model.cpu_share <= 1.1
    assert (loop.name, loop.frames, loop.mean_detections) == ("loop", 6, 3.0)
    assert loop.engine_fps is loop.ratio is loop.memory is None


def test_the_command(model_file, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "video.json"
    arguments = ("bench-video", model_file(), "--video", clip, "--frames", 20, "--rounds", 2, "--json", "-o", output)
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    assert not stop.value.code
    content = json.loads(output.read_text())
    assert json.loads(capsys.readouterr().out) == content
    assert content["machine"]["cores"] >= 1
    assert content["settings"]["encoder"]["preset"]
    (video,) = content["videos"]
    assert video["video"] == "clip.mp4"
    assert len(video["sha256"]) == 64
    (one,) = video["measurements"]
    assert one["settings"]["score_threshold"] == 0.3
    assert len(one["settings"]["model_sha256"]) == 64
    assert one["frames"] == 20
    assert one["memory"]["samples"] == 2
