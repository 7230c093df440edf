"""Frames left out, times kept, and streams that stall, break off and come back."""

from fractions import Fraction
from pathlib import Path

import pytest

from ld_runtime import video_reader
from ld_runtime.errors import ConfigError, InputError
from ld_runtime.media import Frame, open_video
from ld_runtime.video_reader import ReadSettings, VideoReader
from tests.runtime.video_cases import Server, write_frames

NTSC = Fraction(1001, 30000)
VARIABLE = [0, 40, 90, 250, 251, 400, 1000, 1040]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_reader, "FIRST_WAIT_S", 0.05)


@pytest.fixture
def stream(tmp_path: Path) -> bytes:
    return write_frames(tmp_path / "stream.ts", [100 * index for index in range(30)]).read_bytes()


def test_ntsc_stays_30000_over_1001(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.mp4", range(12), time_base=NTSC, rate=1 / NTSC)
    with open_video(path) as video:
        assert video.fps == Fraction(30000, 1001)
        for index, frame in enumerate(video):
            assert frame.pts is not None
            assert frame.time_base is not None
            assert frame.pts * frame.time_base == index * NTSC


def test_variable_times_and_left_out_frames(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.mp4", VARIABLE)
    frames = list(VideoReader(path, ReadSettings(every=3)))
    assert [frame.index for frame in frames] == [0, 3, 6]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.25, 1.0])
    with pytest.raises(ConfigError, match="every must be 1 or more"):
        ReadSettings(every=0)
    with pytest.raises(ConfigError, match="reconnect 0 or more"):
        ReadSettings(reconnect=-1)


def test_a_stream_that_falls_silent_is_an_error(stream: bytes) -> None:
    frames: list[Frame] = []
    stalled = pytest.raises(InputError, match=r"stalled after \d+ frames: no data for 0.5 s")
    with Server(stream, [len(stream) // 2], silent=True) as server, stalled:
        frames.extend(VideoReader(server.address, ReadSettings(stall_s=0.5)))
    assert len(frames) > 5


def test_a_lost_stream_is_opened_again(stream: bytes) -> None:
    said: list[str] = []
    with Server(stream, [len(stream) // 2, 0, None], silent=True) as server:
        reader = VideoReader(server.address, ReadSettings(stall_s=0.5, reconnect=2), say=said.append)
        frames = []
        for frame in reader:
            frames.append(frame)
            if len(frames) == 35:
                break
    assert reader.reconnects == 1
    indices, times = [frame.index for frame in frames], [frame.time_s for frame in frames]
    assert indices == sorted(set(indices))
    assert times == sorted(set(times))
    assert "stalled" in said[0]
    assert "try 1 of 2 in 0.05 s" in said[0]
    assert "try 2 of 2 in 0.1 s" in said[1]
    assert "is back after" in said[2]


def test_tries_are_bounded(stream: bytes) -> None:
    with Server(stream, [len(stream) // 2, 0]) as server:
        reader = VideoReader(server.address, ReadSettings(stall_s=0.5, reconnect=2))
        with pytest.raises(InputError, match="given up after 2 tries to reconnect"):
            list(reader)
    assert server.connections >= 3
