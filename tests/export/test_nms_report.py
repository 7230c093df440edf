from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ld_export.nms_forms import FORMS, TORCH, TWIN
from ld_export.nms_report import Case, nms_report, read_candidates
from ld_runtime.errors import ConfigError, DataError, ParityError
from tests.runtime.native_cases import needs_native

COUNTS = (30, 0, 12)


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Path]:
    """Objects of 20 by 20 px with candidates around each; one image has neither."""
    rng = np.random.default_rng(2)
    boxes, scores, labels, annotations = [], [], [], []
    for image, count in enumerate(COUNTS):
        objects = np.arange(count // 6)
        for i in objects:
            x, label = 50.0 * i, int(i % 2)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image + 7, "category_id": 10 + label, "iscrowd": 0}
                | {"bbox": [x, 0, 20, 20], "area": 400}
            )
        order = np.sort(rng.uniform(0.1, 0.9, count))[::-1]
        for rank in range(count):
            i = rank % max(1, len(objects))
            x = 50.0 * i
            boxes.append(np.array([x, 0, x + 20, 20]) + rng.normal(0, 1, 4))
            scores.append(order[rank])
            labels.append(i % 2)
    path, truth = tmp_path / "candidates.npz", tmp_path / "truth.json"
    np.savez(
        path,
        boxes=np.array(boxes, np.float32),
        scores=np.array(scores, np.float32),
        labels=np.array(labels, np.uint8),
        counts=np.array(COUNTS, np.int32),
        image_ids=np.array([7, 8, 9]),
    )
    images = [{"id": i + 7, "file_name": f"{i}.jpg", "height": 100, "width": 400} for i in range(3)]
    categories = [{"id": 10, "name": "a"}, {"id": 11, "name": "b"}]
    truth.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}), "utf-8")
    return path, truth


@needs_native
def test_report(stored: tuple[Path, Path], tmp_path: Path) -> None:
    import typer

    from ld_export.commands.nms_report import nms_report as command

    app = typer.Typer()
    app.command()(command)
    output = tmp_path / "deep" / "report.json"
    arguments = [str(stored[0]), str(stored[1]), "--case", "30", "--case", "5:0.3", "-o", str(output)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report["images"] == 3
    assert report["threads"] == 1
    case, cut = report["cases"]
    assert (case["top_k"], case["score_threshold"]) == (30, 0.05)
    assert (cut["top_k"], cut["score_threshold"]) == (5, 0.3)
    assert case["candidates"] == {"median": 12.0, "max": 30, "images_at_top_k": 1}
    assert cut["candidates"] == {"median": 5.0, "max": 5, "images_at_top_k": 2}
    assert case["same_detections_as_twin"] == ["native", "torch form", "ONNX function"]
    assert case["images_where_published_differs"] == 0
    assert max(case["max_box_difference_px"].values()) < 2e-3
    ap = case["ap"]
    assert ap["numpy twin"] == ap["native"] == ap["torch form"] == ap["ONNX function"] == ap["published PyTorch form"]
    # Voting averages the noise of six candidates an object: better boxes than the best one alone.
    assert case["ap"]["numpy twin"]["ap"] > case["ap"]["plain NMS (torchvision)"]["ap"] > 0.3
    assert case["ap"]["numpy twin"]["ap50"] == pytest.approx(1)
    assert all(one["n"] == 3 and one["median"] > 0 for one in case["latency_ms"].values())
    for name, times in case["published_takes_times"].items():
        latency = case["latency_ms"]
        assert times * latency[name]["median"] == pytest.approx(latency["published PyTorch form"]["median"])
    assert "best 30 candidates above 0.05 of 3 images" in " ".join(result.output.split())


@pytest.mark.parametrize("text", ["", "a", "1000:", "1000:x", "0", "-3:0.1", "1.5"])
def test_cases_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError, match="a case"):
        Case.parse(text)


def test_cases() -> None:
    assert [Case.parse(text) for text in ("7", "3000:0.02")] == [Case(7, 0.05), Case(3000, 0.02)]


@needs_native
def test_forms_that_differ_are_an_error(stored: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(settings: Any, threads: int) -> Any:
        form = FORMS[TWIN](settings, threads)
        return lambda boxes, scores, labels: form(boxes + np.float32(0.01), scores, labels)

    monkeypatch.setitem(FORMS, TORCH, shifted)
    with pytest.raises(ParityError, match=r"voted boxes differ by 1.0e-02 px"):
        nms_report(stored[0], ground_truth=stored[1])


def test_bad_files(stored: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read candidates from .*nowhere.npz"):
        read_candidates(tmp_path / "nowhere.npz")
    truncated = tmp_path / "truncated.npz"
    truncated.write_bytes(stored[0].read_bytes()[:300])
    with pytest.raises(DataError, match=r"it must be an .npz of boxes, scores, labels, counts and image_ids"):
        read_candidates(truncated)
    other = tmp_path / "other.npz"
    np.savez(other, boxes=np.zeros((3, 4)))
    with pytest.raises(DataError, match="scores"):
        read_candidates(other)
    with np.load(stored[0]) as file:
        arrays = dict(file)
    np.savez(other, **{**arrays, "counts": arrays["counts"] - 1})
    with pytest.raises(DataError, match=r"holds 42 candidates, its counts say 39"):
        read_candidates(other)
    with pytest.raises(DataError, match=r"cannot read the ground truth"):
        nms_report(stored[0], ground_truth=truncated)
