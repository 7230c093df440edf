"""`ld-deploy detect`, `bench` and `doctor`, as the command line calls them."""

import json
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

import ld_runtime
from ld_runtime import cli, native
from ld_runtime.commands.bench import parse_batch_sizes
from ld_runtime.errors import ConfigError
from ld_runtime.media import open_video


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `ld-deploy ARGUMENTS`."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, " ".join(captured.err.split())


@pytest.fixture
def folder(tmp_path: Path, rectangles) -> Path:
    """Two good images of different shapes."""
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), rectangles((96, 160), blue=(10, 20, 50, 60)))
    cv2.imwrite(str(images / "b.png"), rectangles((160, 96), red=(10, 20, 50, 60), green=(0, 0, 9, 9)))
    return images


def loaded(path: Path) -> COCO:
    return COCO(str(path))


def test_detect_in_a_folder(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, stdout, _ = run(capsys, "detect", model_file(), folder, "-o", out, "--batch-size", 2)
    assert status == 0
    assert "3 detections in 2 images above 0.3" in stdout
    assert sorted(path.name for path in (out / "annotated").iterdir()) == ["a.jpg", "b.jpg"]
    assert cv2.imread(str(out / "annotated" / "b.jpg")).shape == (160, 96, 3)
    coco = loaded(out / "detections.json")
    assert [Path(one["file_name"]).name for one in coco.loadImgs([0, 1])] == ["a.png", "b.png"]
    (first,) = coco.loadAnns(coco.getAnnIds(imgIds=[0]))
    assert (first["category_id"], first["bbox"]) == (1, [10, 20, 40, 40])
    assert coco.loadCats([1])[0]["name"] == "blue"


def test_a_bad_image_loses_nothing(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    data = (folder / "a.png").read_bytes()
    (folder / "aa_cut.png").write_bytes(data[: len(data) // 2])
    (folder / "ab_thin.png").write_bytes(cv2.imencode(".png", np.zeros((1, 5000, 3), np.uint8))[1].tobytes())
    out = tmp_path / "out"
    status, _, stderr = run(capsys, "detect", model_file(), folder, "-o", out)
    assert status == 2
    assert "2 of 4 images could not be used, the others were:" in stderr
    assert "aa_cut.png is no image that OpenCV can decode, or it is truncated" in stderr
    assert "too thin" in stderr
    assert len(json.loads((out / "detections.json").read_text())["images"]) == 2
    assert len(list((out / "annotated").iterdir())) == 2


def test_no_images_and_a_threshold(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, stdout, _ = run(
        capsys, "detect", model_file(), folder / "a.png", "-o", out, "--no-images", "--score-threshold", 0.999
    )
    assert status == 0
    assert "0 detections in 1 images above 0.999" in stdout
    assert [path.name for path in out.iterdir()] == ["detections.json"]
    status, _, stderr = run(capsys, "detect", model_file(), folder, "-o", out, "--score-threshold", 0.01)
    assert status == 2
    assert "--score-threshold 0.01" in stderr


def test_tiles_say_what_they_hold(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    cv2.imwrite(str(folder / "large.png"), np.zeros((300, 400, 3), np.uint8))

    def said(*options: object) -> str:
        status, stdout, stderr = run(capsys, "detect", model_file(), folder, "-o", tmp_path / "out", *options)
        assert (status == 0) == (not stderr)
        return " ".join(stdout.split()) or stderr

    auto = said("--tile", "auto")
    assert "Tiles of 160x96 pixels that share 32x20: an object of up to 16 pixels is whole in one of them." in auto
    assert "For larger ones: --largest PIXELS" in auto
    assert "--tile auto shrinks nothing. Where training shrank its images" in auto
    chosen = said("--tile", 128, "--largest", 60)
    assert "Tiles of 128x128 pixels that share 64x64: an object of up to 60 pixels is whole in one of them." in chosen
    assert "--largest PIXELS" not in chosen
    assert "--tile auto" not in chosen
    assert "cannot hold objects of 124: give a --tile that is larger than 128" in said("--tile", 128, "--largest", 124)
    assert "give --tile auto or --tile PIXELS too" in said("--largest", 60)
    assert "Tiles" not in said()


def test_images_of_one_name_keep_apart(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    (folder / "sub").mkdir()
    shutil.copy(folder / "a.png", folder / "sub" / "a.png")
    out = tmp_path / "out"
    assert run(capsys, "detect", model_file(), f"{folder}/**/a.png", "-o", out)[0] == 0
    assert sorted(path.name for path in (out / "annotated").iterdir()) == ["a.jpg", "a_2.jpg"]


def test_sources_are_not_overwritten(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    folder.rename(tmp_path / "annotated")
    status, _, stderr = run(capsys, "detect", model_file(), tmp_path / "annotated", "-o", tmp_path)
    assert status == 2
    assert "choose another -o" in stderr


def test_an_empty_folder(capsys, model_file, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, _, stderr = run(capsys, "detect", model_file(), tmp_path / "empty", "-o", tmp_path / "out")
    assert status == 2
    assert "no image found in this folder" in stderr
    assert not (tmp_path / "out").exists()


@pytest.fixture
def clip(tmp_path: Path, rectangles) -> Path:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "1", "bf": "0"})
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuv420p"
        for index in range(20):
            image = rectangles((96, 160), blue=(2 * index, 20, 40 + 2 * index, 60))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def test_detect_in_a_video(capsys, clip: Path, model_file, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(capsys, "detect", model_file(), clip, "-o", out)[0] == 0
    coco = loaded(out / "detections.json")
    assert coco.getImgIds() == list(range(20))  # image_id is the frame's index
    (seventh,) = coco.loadAnns(coco.getAnnIds(imgIds=[7]))
    assert seventh["bbox"] == pytest.approx([14, 20, 40, 40], abs=2)
    with open_video(out / "annotated" / "clip.mp4") as video:
        assert video.fps == 10
        frames = list(video)
    assert len(frames) == 20
    assert frames[0].image.shape == (96, 160, 3)


def test_a_truncated_video_loses_nothing(capsys, clip: Path, model_file, tmp_path: Path) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) * 3 // 4])
    out = tmp_path / "out"
    status, _, stderr = run(capsys, "detect", model_file(), clip, "-o", out)
    assert status == 2
    assert "the file is truncated" in stderr
    frames = len(loaded(out / "detections.json").getImgIds())
    assert 0 < frames < 20
    with open_video(out / "annotated" / "clip.mp4") as video:
        assert len(list(video)) == frames


def test_a_video_that_cannot_be_opened(capsys, model_file, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video", encoding="utf-8")
    status, _, stderr = run(capsys, "detect", model_file(), tmp_path / "text.mp4", "-o", tmp_path / "out")
    assert status == 2
    assert "is no video that FFmpeg can read" in stderr
    assert not (tmp_path / "out" / "detections.json").exists()


def test_bench_writes_what_it_measured(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    first, second = model_file(name="first.onnx"), model_file(name="second.onnx")
    output = tmp_path / "bench.json"
    status, stdout, _ = run(
        capsys, "bench", first, second, "--images", folder, "--seconds", 0.1, "--batch-sizes", "1,3", "-o", output
    )
    assert status == 0
    assert "end_to_end" in stdout
    content = json.loads(output.read_text())
    assert content["images"]["count"] == 2
    assert len(content["images"]["sha256"]) == 64
    assert content["machine"]["cores"] >= 1
    assert [one["name"] for one in content["measurements"]] == ["first.onnx", "second.onnx"]
    for one in content["measurements"]:
        assert set(one["spans"]) == {"preprocess", "engine", "end_to_end"}
        for latency in one["spans"].values():
            assert latency["n"] >= 10  # at least one a round
            assert 0 < latency["median_ms"] <= latency["p90_ms"] <= latency["p99_ms"]
        assert one["spans"]["engine"]["median_ms"] < one["spans"]["end_to_end"]["median_ms"]
        assert set(one["images_per_second"]) == {"1", "3"}
        assert one["settings"]["peak_rss_mb"] > 10
        assert len(one["settings"]["model_sha256"]) == 64
    assert content["ratios"][0]["of"] == "first.onnx"


def test_bench_measures_nothing_that_cannot_be_written(capsys, folder: Path, model_file, tmp_path: Path) -> None:
    (tmp_path / "out.json").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ld_runtime.bench.measure", lambda *_a, **_k: pytest.fail("it was measured"))
        status, _, stderr = run(capsys, "bench", model_file(), "--images", folder, "-o", tmp_path / "out.json")
    assert status == 2
    assert "out.json: it is a folder" in stderr


def test_bench_asks_for_real_images(capsys, model_file, tmp_path: Path) -> None:
    status, _, stderr = run(capsys, "bench", model_file(), "--images", tmp_path / "none")
    assert status == 2
    assert "no image found" in stderr


def test_batch_sizes() -> None:
    assert parse_batch_sizes("1, 4,8") == (1, 4, 8)
    for wrong in ("", "0", "1,-2", "a", "1,,2"):
        with pytest.raises(ConfigError, match="--batch-sizes takes positive numbers"):
            parse_batch_sizes(wrong)


def test_doctor(capsys) -> None:
    status, stdout, _ = run(capsys, "doctor")
    assert status == 0
    for part in ("OpenCV", "ONNX Runtime", "TensorRT", "PyAV", "supervision", "pycocotools", "torch", "mmdet"):
        assert part in stdout
    assert "CPUExecutionProvider" in stdout


def test_doctor_says_what_the_nms_runs_in(capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if native.is_available():
        assert f"NMS and GFL decode run in C++: {native.library_path()}" in run(capsys, "doctor")[1]
    monkeypatch.setattr(ld_runtime, "__path__", [str(tmp_path)])
    native.load_library.cache_clear()
    try:
        status, stdout, _ = run(capsys, "doctor")
    finally:
        native.load_library.cache_clear()
    assert status == 0
    assert "NMS and GFL decode run in numpy or in the graph, which is slower: the native host library" in stdout
    assert "pip install" in stdout
