"""The README's figures of the runtime are those of docs/results, and reach what they must."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

NETWORKS = {
    "r18.onnx": "fp32, ONNX Runtime",
    "r18.onnx@openvino:bf16": "bf16, OpenVINO",
    "r18.int8.onnx@openvino": "int8, OpenVINO",
    "student.onnx": "BCCD's student, fp32",
}
VIDEOS = ("car-detection.mp4", "mmdet_demo.mp4")
LOOP = "mmdet's loop"


def read(name: str) -> Any:
    return json.loads((ROOT / "docs" / "results" / name).read_text(encoding="utf-8"))


def of_videos(name: str) -> dict[str, dict[str, Any]]:
    """Measurements by video and runner."""
    return {
        Path(one["video"]).name: {each["name"]: each for each in one["measurements"]} for one in read(name)["videos"]
    }


def loop_of(measurements: dict[str, Any]) -> Any:
    (loop,) = [one for name, one in measurements.items() if name not in NETWORKS]
    return loop


def video_rows() -> list[str]:
    found = of_videos("video.json")
    rows = []
    for name, title in NETWORKS.items():
        cells = [
            f"{one['fps']:.1f} | {one['engine_fps']:.1f} | {one['ratio']:.2f}"
            for one in (found[video][name] for video in VIDEOS)
        ]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    cells = [f"{loop_of(found[video])['fps']:.1f} | - | -" for video in VIDEOS]
    return [*rows, f"| {LOOP}, fp32 | {' | '.join(cells)} |"]


def one_thread() -> list[float]:
    """Ratios of int8 with the engine on one of two cores, by video."""
    found = of_videos("video_one_thread.json")
    return [found[video]["r18.int8.onnx@openvino"]["ratio"] for video in VIDEOS]


def one_thread_sentences() -> list[str]:
    return [f"the int8 ratios are {' and '.join(f'{ratio:.2f}' for ratio in one_thread())}"]


def of_long_video() -> Any:
    ((measurements),) = of_videos("video_memory.json").values()
    return measurements["student.onnx"]


def memory_sentences() -> list[str]:
    memory = of_long_video()["memory"]
    return [f"from {memory['first_mb']:.0f} MB to {memory['last_mb']:.0f} MB over 5,000 frames"]


def startup_ratios() -> dict[tuple[str, str], float]:
    """By what is started and the file's name."""
    found = {}
    for one in read("startup.json")["ratios"]:
        what, _, file = one["of"].rpartition(" ") if "/" in one["of"] else (one["of"], "", "")
        found[what, Path(file).name] = one["ratio"]
    return found


def startup_sentences() -> list[str]:
    found = startup_ratios()
    files = ("student.onnx", "r18.onnx")
    ready = " and ".join(f"{found['Detector', file]:.2f}" for file in files)
    first = " and ".join(f"{found['Detector and an image', file]:.2f}" for file in files)
    names = found["all public names", ""]
    return [f"takes {names:.2f} times", f"is ready after {ready} times", f"its first image after {first} times"]


def folder_sentences() -> list[str]:
    found = read("folder_10000.json")
    rss = found["peak_rss_mb"]
    return [
        f"{found['images']:,} images, killed {found['kills']} times",
        f"{found['lost']} lost, {found['repeated']} repeated",
        f"{rss['1000']:.0f} MB at 1,000 images and {rss['10000']:.0f} MB at 10,000",
    ]


def sentences() -> list[str]:
    return one_thread_sentences() + memory_sentences() + startup_sentences() + folder_sentences()


@pytest.mark.parametrize("row", video_rows())
def test_readme_has_the_rows_of_the_video_benchmark(row: str) -> None:
    assert row in README


@pytest.mark.parametrize("sentence", sentences())
def test_readme_says_what_was_measured(sentence: str) -> None:
    assert sentence in " ".join(README.split())


@pytest.mark.parametrize("video", VIDEOS)
def test_video_is_as_fast_as_it_must_be(video: str) -> None:
    found = of_videos("video.json")[video]
    for name in ("r18.onnx", "r18.onnx@openvino:bf16", "r18.int8.onnx@openvino"):
        assert found[name]["ratio"] >= 0.85  # two cores: the video's own work takes from the engine's
        assert found[name]["frames"] >= 100
    loop = loop_of(found)  # the same work: as many boxes drawn
    assert loop["mean_detections"] == found["r18.onnx"]["mean_detections"]
    assert found["r18.onnx"]["fps"] >= 1.35 * loop["fps"]
    assert found["r18.int8.onnx@openvino"]["fps"] >= 4 * loop["fps"]


def test_a_core_of_its_own_is_enough_for_the_video() -> None:
    assert min(one_thread()) >= 0.95


def test_memory_is_flat_over_5000_frames() -> None:
    one = of_long_video()
    assert one["frames"] >= 5000
    assert one["memory"]["last_mb"] <= 1.05 * one["memory"]["first_mb"]
    assert one["memory"]["samples"] >= 100


def test_start_up_is_as_quick_as_it_must_be() -> None:
    found = startup_ratios()
    assert found["import ld_runtime", ""] <= 1.3
    assert found["all public names", ""] <= 1.3
    for (what, file), ratio in found.items():
        if what.startswith("Detector"):
            assert ratio <= 1.2, file


def test_a_killed_run_lost_nothing() -> None:
    found = read("folder_10000.json")
    assert (found["images"], found["lost"], found["repeated"], found["identical"]) == (10000, 0, 0, True)
    assert found["kills"] >= 3
    assert found["detections"] > 10000
    assert found["peak_rss_ratio"] <= 1.1
