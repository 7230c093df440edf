"""The loop that mmdet's users write, on a small network with random weights."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from ld_deploy.bench_video_reference import video_reference
from ld_runtime.errors import InputError
from tests.runtime.video_cases import write_frames


@pytest.mark.parametrize("most", [None, 3])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:__array_wrap__:DeprecationWarning")  # mmdet's drawing
def test_frames_are_detected_drawn_and_written(tiny_config: Path, tmp_path: Path, most: int | None) -> None:
    config = tmp_path / "config.py"
    test_cfg = "dict(test_cfg=dict(score_thr=0.0, max_per_img=10))"
    config.write_text(f"_base_ = {str(tiny_config)!r}\nmodel = {test_cfg}\n", encoding="utf-8")
    loop = video_reference(config, "cpu", score_threshold=0.0, max_detections=most)
    video = write_frames(tmp_path / "a.mp4", [0, 100, 200])
    frames, found = loop.run(video, tmp_path / "b.mp4")
    assert frames == 3
    assert found == 9 if most else 9 < found <= 30  # what a random network finds is its own affair
    with av.open(str(tmp_path / "b.mp4")) as written:
        assert len(list(written.decode(video=0))) == 3
    assert loop.settings.get("max_detections") == most


def test_a_file_that_is_no_video(tiny_config: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="cannot read"):
        video_reference(tiny_config, "cpu", score_threshold=0.0).run(tmp_path / "a.mp4", tmp_path / "b.mp4")
