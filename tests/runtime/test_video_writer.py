"""Written videos keep times and sound, and one size."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from ld_runtime.errors import LdDeployError
from ld_runtime.media import open_video
from ld_runtime.video_writer import written_video
from tests.runtime.video_cases import write_frames

NTSC = Fraction(1001, 30000)


def copied(source: Path, output: Path, **settings: Any) -> list[str]:
    said: list[str] = []
    with open_video(source) as video, written_video(output, fps=video.fps, say=said.append, **settings) as write:
        for frame in video:
            write(frame.image, frame)
    return said


def times(path: Path) -> list[Fraction]:
    with open_video(path) as video:
        return [frame.pts * frame.time_base for frame in video if frame.pts is not None and frame.time_base is not None]


@pytest.mark.parametrize("pts", [[0, 40, 90, 250, 251, 400, 1000], [500, 540, 700]])
def test_times_are_kept(tmp_path: Path, pts: list[int]) -> None:
    source = write_frames(tmp_path / "a.mp4", pts)
    copied(source, tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4") == times(source) == [Fraction(one, 1000) for one in pts]


def test_ntsc_is_kept(tmp_path: Path) -> None:
    source = write_frames(tmp_path / "a.mp4", range(12), time_base=NTSC, rate=1 / NTSC)
    copied(source, tmp_path / "b.mp4")
    assert times(tmp_path / "b.mp4") == [index * NTSC for index in range(12)]
    with open_video(tmp_path / "b.mp4") as video:
        assert video.fps == Fraction(30000, 1001)


@pytest.mark.parametrize("hw", [(64, 96), (63, 95)])
def test_colours_are_kept(tmp_path: Path, hw: tuple[int, int]) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40), (0, 0, 0), (255, 255, 255)]
    with written_video(tmp_path / "a.mp4", fps=Fraction(10)) as write:
        for colour in colours:
            write(np.full((*hw, 3), colour, np.uint8))
    with open_video(tmp_path / "a.mp4") as video:
        found = [frame.image[8:-8, 8:-8].mean(axis=(0, 1)) for frame in video]
    np.testing.assert_allclose(found, colours, atol=6)


def sound(path: Path) -> list[tuple[int | None, bytes]]:
    with av.open(str(path)) as container:
        assert len(container.streams.audio) == 1
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def test_sound_is_copied_to_the_byte(tmp_path: Path) -> None:
    source = write_frames(tmp_path / "a.mp4", range(0, 1000, 100), sound="aac")
    assert copied(source, tmp_path / "b.mp4", audio_from=source) == []
    assert len(sound(source)) > 10
    assert sound(tmp_path / "b.mp4") == sound(source)


def test_sound_that_mp4_does_not_hold_is_left_out_and_said(tmp_path: Path) -> None:
    source = write_frames(tmp_path / "a.avi", range(10), time_base=Fraction(1, 10), sound="pcm_mulaw")
    assert copied(source, tmp_path / "b.mp4", audio_from=source) == [
        "sound in pcm_mulaw is left out: mp4 does not hold it"
    ]
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert not container.streams.audio


def test_sound_ends_with_a_run_that_was_stopped(tmp_path: Path) -> None:
    source = write_frames(tmp_path / "a.mp4", range(0, 1000, 100), sound="aac")
    with open_video(source) as video, written_video(tmp_path / "b.mp4", fps=None, audio_from=source) as write:
        for frame in video:
            write(frame.image, frame)
            if frame.index == 3:
                break
        write.stopped_early = True
    whole, cut = sound(source), sound(tmp_path / "b.mp4")
    assert 0 < len(cut) < len(whole)
    assert cut == whole[: len(cut)]
    assert cut[-1][0] is not None
    assert 0.3 < cut[-1][0] / 16000 < 0.41


def test_another_size_is_fitted_into_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    with written_video(tmp_path / "a.mp4", fps=Fraction(10), say=said.append) as write:
        write(np.full((48, 96, 3), 200, np.uint8))
        write(np.full((96, 48, 3), 200, np.uint8))
    assert said == ["the video changes to 48x96: fitted into its first 96x48, with bars"]
    with open_video(tmp_path / "a.mp4") as video:
        _, second = [frame.image for frame in video]
    assert second.shape == (48, 96, 3)
    assert second[:, 40:56].mean() == pytest.approx(200, abs=8)  # 24 columns of picture between the bars
    assert second[:, :32].max() < 30
    assert second[:, 66:].max() < 30


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a full disk is played by Linux's /dev/full")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = av.open
    monkeypatch.setattr(av, "open", lambda _, *rest, **more: opened("/dev/full", *rest, **more, format="mp4"))
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    with pytest.raises(LdDeployError, match="No space left"), written_video(tmp_path / "a.mp4", fps=None) as write:
        list(map(write, [noise] * 300))
    assert list(tmp_path.iterdir()) == []
