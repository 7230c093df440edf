"""One model on several videos: batches, order, and that one source's end leaves the others running."""

import time
from pathlib import Path

import numpy as np
import pytest

from ld_runtime import Detector
from ld_runtime.errors import ConfigError, InputError
from ld_runtime.streams import FrameDetections, VideoStreams
from ld_runtime.video_reader import ReadSettings
from tests.runtime.video_cases import Server, no_thread_left, write_frames


class Batches(Detector):
    """Remembers the batches that it ran."""

    slow_s = 0.0

    def run(self, prepared):
        self.sizes = [*getattr(self, "sizes", []), [one.canvas.shape for one in prepared]]
        time.sleep(self.slow_s)
        return super().run(prepared)


@pytest.fixture
def detector(model_file) -> Batches:
    return Batches(model_file())


def clip(path: Path, count: int, hw: tuple[int, int] = (96, 160)) -> Path:
    return write_frames(path, range(0, 100 * count, 100), hw=hw)


def test_each_source_keeps_its_order_and_its_boxes(detector: Batches, tmp_path: Path) -> None:
    sources = [clip(tmp_path / "a.mp4", 9), clip(tmp_path / "b.mp4", 5), clip(tmp_path / "c.mp4", 7, (160, 96))]
    streams = VideoStreams(detector, sources, batch_size=4)
    with no_thread_left():
        results = list(streams.results())
    for source, count in enumerate((9, 5, 7)):
        own = [one for one in results if one.source == source]
        assert [one.frame.index for one in own] == list(range(count))
        for one in own:
            assert one.detections.boxes[0, 0] == pytest.approx(2 * one.frame.index, abs=1.5)
    assert [report.frames for report in streams.reports()] == [9, 5, 7]
    assert all(len(batch) <= 4 and len(set(batch)) == 1 for batch in detector.sizes)
    assert max(map(len, detector.sizes)) > 1


def test_frames_of_several_sources_share_a_batch(detector: Batches, tmp_path: Path) -> None:
    sources = [clip(tmp_path / f"{name}.mp4", 6) for name in "ab"]
    list(VideoStreams(detector, sources, batch_size=2, max_wait_s=5).results())
    assert [len(batch) for batch in detector.sizes] == [2] * 6


def test_a_quiet_source_does_not_hold_the_others_up(detector: Batches, tmp_path: Path) -> None:
    content = write_frames(tmp_path / "quiet.ts", range(0, 3000, 100)).read_bytes()
    with Server(content, [len(content) // 2], silent=True) as server:
        sources = [clip(tmp_path / "a.mp4", 20), server.address]
        streams = VideoStreams(detector, sources, batch_size=4, settings=ReadSettings(stall_s=1))
        start = time.monotonic()
        times: list[float] = []
        with no_thread_left(), pytest.raises(InputError, match=r"1 of 2 sources failed, the others ended:\n.*stalled"):
            times.extend(time.monotonic() - start for one in streams.results() if one.source == 0)
    assert len(times) == 20
    assert times[-1] < 1  # long before the other one stalls
    first, second = streams.reports()
    assert first.error is None
    assert isinstance(second.error, InputError)


def test_a_source_that_is_none_leaves_the_others(detector: Batches, tmp_path: Path) -> None:
    sources = [tmp_path / "gone.mp4", clip(tmp_path / "a.mp4", 4)]
    results: list[FrameDetections] = []
    with no_thread_left(), pytest.raises(InputError, match=r"gone\.mp4: No such file"):
        results.extend(VideoStreams(detector, sources).results())
    assert [one.source for one in results] == [1] * 4
    with no_thread_left(), pytest.raises(InputError, match=r"^cannot open video .*gone.mp4"):
        list(VideoStreams(detector, sources[:1]).results())


def test_the_newest_frame_wins_where_frames_may_be_dropped(detector: Batches, tmp_path: Path) -> None:
    detector.slow_s = 0.05
    source = clip(tmp_path / "a.mp4", 40)
    streams = VideoStreams(detector, [source], settings=ReadSettings(drop=True))
    indices = [one.frame.index for one in streams.results()]
    (report,) = streams.reports()
    assert report.dropped > 10
    assert report.frames + report.dropped == 40
    assert indices[-1] == 39
    assert indices == sorted(indices)
    all_of_them = VideoStreams(detector, [source])
    assert len(list(all_of_them.results())) == 40
    assert all_of_them.reports()[0].dropped == 0


@pytest.mark.parametrize("stage", ["prepare", "run", "finish"])
@pytest.mark.parametrize("kind", [ValueError, MemoryError, InputError, KeyboardInterrupt])
def test_a_failure_in_any_stage_comes_out_and_ends_all(
    stage: str, kind: type[BaseException], detector: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, calls = kind("injected"), 0
    original = getattr(detector, stage)

    def fail(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(detector, stage, fail)
    seen: list[int] = []
    with no_thread_left(), pytest.raises(kind) as caught:
        seen.extend(one.frame.index for one in VideoStreams(detector, [clip(tmp_path / "a.mp4", 20)]).results())
    assert caught.value is error
    assert seen == [0, 1]


def test_leaving_while_a_stream_is_silent_takes_no_longer_than_its_time_out(detector: Batches, tmp_path: Path) -> None:
    content = write_frames(tmp_path / "quiet.ts", range(0, 3000, 100)).read_bytes()
    with Server(content, [len(content) // 2], silent=True) as server:
        results = VideoStreams(detector, [server.address], settings=ReadSettings(stall_s=1)).results()
        next(results)
        time.sleep(0.3)  # the reader waits for data by now
        with no_thread_left(limit_s=3):
            results.close()
        reconnecting = VideoStreams(detector, [server.address], settings=ReadSettings(stall_s=0.3, reconnect=99))
        results = reconnecting.results()
        next(results)
        time.sleep(0.6)  # the reader waits for its next try
        with no_thread_left(limit_s=3):
            results.close()


def test_stream_of_the_detector(detector: Batches, tmp_path: Path) -> None:
    source = clip(tmp_path / "a.mp4", 8)
    with no_thread_left():
        pairs = list(detector.stream(source, every=4))
    assert len(pairs) == 2
    for (image, detections), x in zip(pairs, (0, 8), strict=True):
        assert image.dtype == np.uint8
        assert detections.boxes[0, 0] == pytest.approx(x, abs=1.5)
    with pytest.raises(ConfigError, match="batch_size 1 or more"):
        VideoStreams(detector, [source], batch_size=0)
    with pytest.raises(ConfigError, match="there must be a source"):
        VideoStreams(detector, [])
