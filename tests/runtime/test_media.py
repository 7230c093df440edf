"""Images from files, folders and globs; videos that are whole, truncated, foreign, or not there."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ld_runtime import Detector
from ld_runtime.errors import InputError, LdDeployError
from ld_runtime.media import is_video, list_images, open_video
from ld_runtime.video_writer import written_video


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_list_images(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "notes.txt", "clip.mp4", "sub/c.jpeg", "folder.png/d.bmp")
    assert list_images(tmp_path) == [tmp_path / "a.png", tmp_path / "b.JPG"]
    assert list_images(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert list_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]  # named: decoding will tell
    assert list_images(f"{tmp_path}/*.p*") == [tmp_path / "a.png"]
    assert list_images(f"{tmp_path}/**/*") == [
        tmp_path / name for name in ("a.png", "b.JPG", "folder.png/d.bmp", "sub/c.jpeg")
    ]


def test_no_image_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match=r"no image found in this folder: .*looked for \.avif"):
        list_images(tmp_path)
    for source in (tmp_path / "gone.jpg", f"{tmp_path}/*.jpg"):
        with pytest.raises(InputError, match="no image found by this name or glob"):
            list_images(source)


@pytest.mark.parametrize(
    "source", [0, "0", "rtsp://host/stream", "https://host/a", "a.mp4", "dir/b.MKV", Path("c.avi")]
)
def test_is_video(source) -> None:
    assert is_video(source)


@pytest.mark.parametrize("source", ["a.jpg", "dir", "dir/*.png", "mp4", "0.jpg"])
def test_is_no_video(source) -> None:
    assert not is_video(source)


def write_clip(path: Path, count: int = 30, *, hw: tuple[int, int] = (48, 64), fast_start: bool = False) -> Path:
    """Frame i is flat grey of value 8 * i, but for a blue left half; ten frames a second."""
    options = {"movflags": "faststart"} if fast_start else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1", "g": "5", "bf": "0"})
        stream.height, stream.width = hw
        stream.pix_fmt = "yuv420p"
        for index in range(count):
            image = np.full((*hw, 3), 8 * index, np.uint8)
            image[:, : hw[1] // 2] = (255, 0, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def test_frames_by_hand(tmp_path: Path) -> None:
    with open_video(write_clip(tmp_path / "clip.mp4")) as video:
        assert video.fps == 10
        assert video.frame_count == 30
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in range(30)])
    for index, frame in enumerate(frames):
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        assert frame.image[:, 40:].mean() == pytest.approx(8 * index, abs=5)  # YUV and back, as FFmpeg rounds
        blue, green, red = frame.image[24, 10]
        assert blue > 240
        assert max(green, red) < 20


def test_the_rotation_that_phones_write_is_applied(tmp_path: Path) -> None:
    data = bytearray(write_clip(tmp_path / "clip.mp4", 2).read_bytes())
    # The track header's matrix, 40 bytes behind its name: a quarter turn clockwise, as of a phone held upright.
    at = data.find(b"tkhd") + 44
    assert data[at : at + 4] == (1 << 16).to_bytes(4, "big")
    turn = (0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in turn)
    path = tmp_path / "turned.mp4"
    path.write_bytes(data)
    with open_video(path) as video:
        image = next(iter(video)).image
    assert image.shape == (64, 48, 3)
    assert image[:28, :, 0].min() > 240  # the blue left half has become the upper half
    assert image[36:].max() < 20


def test_a_truncated_file_gives_its_frames_and_then_an_error(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", fast_start=True).read_bytes()
    assert whole.find(b"moov") < whole.find(b"mdat")
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: len(whole) * 6 // 10])
    frames = []
    with open_video(path) as video:
        with pytest.raises(InputError, match=r"of the 3.00 s that it claims, after \d+ of 30 frames: .* truncated"):
            frames.extend(video)
        assert 0 < len(frames) < 30
    # An index at the end is cut off with it: such a file cannot even be opened.
    slow = write_clip(tmp_path / "slow.mp4").read_bytes()
    path.write_bytes(slow[: len(slow) // 2])
    with pytest.raises(InputError, match="is no video that FFmpeg can read, or it is truncated"):
        open_video(path)


def test_videos_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "empty.mp4"):
        with pytest.raises(InputError, match=f"{name} is no video"):
            open_video(tmp_path / name)
    with pytest.raises(InputError, match=r"cannot open video .*gone.mp4: No such file"):
        open_video(tmp_path / "gone.mp4")
    with pytest.raises(InputError, match=r"cannot open video .*: Is a directory"):
        open_video(tmp_path)
    with pytest.raises(InputError, match=r"cannot open video rtsp://127\.0\.0\.1:1/x: Connection refused"):
        open_video("rtsp://127.0.0.1:1/x")
    with pytest.raises(InputError, match="cannot open video 9731"):
        open_video(9731)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(InputError, match="has no video stream; its streams: audio"):
        open_video(path)


def test_stream_yields_frames_and_detections(model_file, tmp_path: Path) -> None:
    detector = Detector(model_file())
    path = write_clip(tmp_path / "clip.mp4", 3, hw=(96, 160))
    pairs = list(detector.stream(path))
    assert [(frame.shape, frame.dtype) for frame, _ in pairs] == [((96, 160, 3), np.uint8)] * 3
    for _, detections in pairs:
        np.testing.assert_array_equal(detections.labels, [0])
        np.testing.assert_allclose(detections.boxes, [[0, 0, 80, 96]], atol=1)


def test_a_stream_may_be_left_early(model_file, tmp_path: Path) -> None:
    stream = Detector(model_file()).stream(write_clip(tmp_path / "clip.mp4"))
    next(stream)
    stream.close()


@pytest.mark.parametrize("hw", [(48, 64), (47, 63)])
def test_written_video_reads_back(tmp_path: Path, hw: tuple[int, int]) -> None:
    path = tmp_path / "new" / "out.mp4"
    with written_video(path, fps=Fraction(25, 2)) as write:
        for value in (50, 150):
            write(np.full((*hw, 3), value, np.uint8))
    with open_video(path) as video:
        assert video.fps == Fraction(25, 2)
        frames = list(video)
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 2  # odd sides get one pixel more
    assert [int(frame.image.mean()) for frame in frames] == pytest.approx([50, 150], abs=5)
    assert [one.name for one in path.parent.iterdir()] == ["out.mp4"]


def test_a_video_that_fails_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"from before")

    def fail() -> None:
        with written_video(path, fps=None) as write:
            write(np.zeros((48, 64, 3), np.uint8))
            raise InputError("stop")

    with pytest.raises(InputError, match="stop"):
        fail()
    assert path.read_bytes() == b"from before"
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").touch()
    with pytest.raises(LdDeployError, match="cannot write"), written_video(tmp_path / "file" / "a.mp4", fps=None):
        pass


def test_without_pyav() -> None:
    program = (
        "import sys; sys.modules['av'] = None\n"
        "from ld_runtime.media import open_video\n"
        "from ld_runtime.errors import BackendMissingError\n"
        "try:\n    open_video('a.mp4')\n"
        "except BackendMissingError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "pip install 'ld-deploy[video]'" in done.stdout
