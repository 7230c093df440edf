"""The report says what was measured, also when that is not what one hoped for."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from ld_deploy.demo.pictures import choose_images, draw_curves, draw_spans, is_right
from ld_deploy.demo.report import gather_rows, markdown_table, screen_table, span_rows, verdicts
from ld_deploy.demo.screen import minutes
from ld_deploy.demo.stages import StageResult
from ld_deploy.demo.training import read_curves
from ld_runtime.detections import Detections
from ld_runtime.errors import DataError


def latency(median: float) -> dict[str, float]:
    return {"median_ms": median, "p90_ms": median + 1, "p99_ms": median + 2, "mean_ms": median, "n": 7}


MEASUREMENTS: list[dict[str, Any]] = [
    {"name": "teacher", "fps": 50.0, "spans": {name: latency(ms) for name, ms in (("engine", 15), ("end_to_end", 20))}},
    {
        "name": "student",
        "fps": 90.0,
        "spans": {"preprocess": latency(1), "engine": latency(8), "end_to_end": latency(11)},
    },
    {"name": "ld_student", "fps": 91.0, "spans": {"end_to_end": latency(10)}},
    {"name": "ld_student.int8", "fps": 140.0, "spans": {"end_to_end": latency(7)}},
    {"name": "PyTorch", "fps": 30.0, "spans": {"end_to_end": latency(33)}},
]


def results_of(teacher: float, student: list[float], distilled: list[float]) -> dict[str, StageResult]:
    def training(ap: float) -> StageResult:
        return StageResult("", {"ap": ap, "ap50": ap + 0.2, "ap75": ap + 0.1, "parameters": 784_000})

    results = {"teacher": training(teacher)}
    for role, aps in (("student", student), ("ld_student", distilled)):
        for seed, ap in enumerate(aps):
            results[role if seed == 0 else f"{role}_seed{seed}"] = training(ap)
    reports: dict[str, dict[str, Any]] = {
        role: {
            "ap_difference": {f"{role}.onnx": 0.0001},
            "agreement": {f"{role}.onnx": {"matched_share": 0.9995}},
            "ap": {},
        }
        for role in ("teacher", "student", "ld_student")
    }
    int8 = "ld_student.int8.onnx"
    reports["ld_student"]["ap"][int8] = {"ap": 0.321, "ap50": 0.5, "ap75": 0.4}
    reports["ld_student"]["ap_difference"][int8] = -0.0012
    reports["ld_student"]["agreement"][int8] = {"matched_share": 0.75}
    results["verify"] = StageResult("", {"reports": reports})
    results["bench"] = StageResult("", {"measurements": MEASUREMENTS})
    return results


def test_one_seed() -> None:
    rows = gather_rows(results_of(0.5, [0.3], [0.35]))
    assert [row.role for row in rows] == ["teacher", "student", "ld_student", "ld_student.int8"]
    assert rows[3].cells() == ("LD student, INT8", "0.321", "0.500", "0.400", "0.78 M", "-0.0012", "75.00%", "140")
    assert rows[1].cells() == ("student", "0.300", "0.500", "0.400", "0.78 M", "+0.0001", "99.95%", "90")
    assert verdicts(rows) == [
        "The teacher leads the student that was trained alone by 20.0 AP points.",
        "Distillation helped: +5.0 AP points (one seed: no spread is known).",
        "INT8 changes AP by -0.1 points and runs 1.5 times as many images a second.",
    ]


def test_spread_over_seeds() -> None:
    rows = gather_rows(results_of(0.5, [0.30, 0.32], [0.33, 0.37]))
    assert rows[1].ap == pytest.approx(0.31)
    assert rows[1].cells()[1] == "0.310 ± 0.014"  # sample standard deviation: 0.02 / sqrt(2)
    assert rows[2].ap_by_seed == (0.33, 0.37)
    assert verdicts(rows)[1] == "Distillation helped: +4.0 AP points (seeds: +3.0, +5.0)."


@pytest.mark.parametrize(
    ("student", "distilled", "words"),
    [
        ([0.30, 0.30], [0.36, 0.28], "Distillation helped on average, not with every seed: +2.0"),
        ([0.30], [0.30], "Distillation did not help on this set: +0.0"),
        ([0.30], [0.25], "Distillation did not help on this set: -5.0"),
    ],
)
def test_what_did_not_work_is_said(student: list[float], distilled: list[float], words: str) -> None:
    assert verdicts(gather_rows(results_of(0.5, student, distilled)))[1].startswith(words)


def test_a_teacher_that_is_behind() -> None:
    words = verdicts(gather_rows(results_of(0.25, [0.3], [0.3])))
    assert words[0] == "The teacher is behind the student that was trained alone by 5.0 AP points."


def test_a_missing_stage_is_named() -> None:
    results = results_of(0.5, [0.3], [0.3])
    del results["bench"]
    with pytest.raises(DataError, match="needs the stages bench"):
        gather_rows(results)


def test_the_table_fits_eighty_columns() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(screen_table(gather_rows(results_of(0.5, [0.30, 0.32], [0.33, 0.37]))))
    text = console.export_text()
    assert "0.310 ± 0.014" in text
    assert "LD student" in text
    assert "…" not in text


def test_markdown() -> None:
    assert markdown_table(("a", "b"), [("x", "1")]) == "| a | b |\n| --- | ---: |\n| x | 1 |"


def test_span_table_leaves_open_what_was_not_timed() -> None:
    rows = span_rows({"measurements": MEASUREMENTS})
    assert rows[1] == ("student", "1.0", "8.0", "11.0", "12.0", "13.0", "7")
    assert rows[4] == ("PyTorch", "-", "-", "33.0", "34.0", "35.0", "7")


def test_pictures_are_written(tmp_path: Path) -> None:
    curves = {
        "teacher": {"loss": [[0.5, 2.0], [1.0, 1.0]], "val_ap": [[1, 0.2]]},
        "student": {"loss": [], "val_ap": []},
    }
    draw_curves(curves, titles={"teacher": "t", "student": "s"}, path=tmp_path / "curves.png")
    draw_spans(MEASUREMENTS, path=tmp_path / "spans.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "spans.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())


def test_right_detections() -> None:
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10]], np.float32)
    labels = np.array([1, 2])
    found = Detections(
        np.array(
            [
                [0, 0, 10, 5],  # IoU exactly 0.5: right
                [0, 0, 10, 10],  # better, but the object is taken
                [20, 0, 30, 10],  # wrong class
                [20, 0, 30, 4.9],  # IoU just below
            ],
            np.float32,
        ),
        np.array([0.9, 0.8, 0.7, 0.6], np.float32),
        np.array([1, 1, 1, 2]),
    )
    assert is_right(found, boxes, labels).tolist() == [True, False, False, False]
    assert is_right(Detections.empty(), boxes, labels).tolist() == []


def test_images_are_spread_and_have_objects() -> None:
    truth = {
        "images": [{"id": number} for number in range(6)],
        "annotations": [{"image_id": number, "iscrowd": int(number == 5)} for number in (1, 2, 3, 5)],
    }
    assert [record["id"] for record in choose_images(truth, count=2)] == [1, 3]
    assert [record["id"] for record in choose_images(truth, count=9)] == [1, 2, 3]


def test_curves_of_a_resumed_training(tmp_path: Path) -> None:
    def write(name: str, records: list[dict[str, float]]) -> None:
        folder = tmp_path / name / "vis_data"
        folder.mkdir(parents=True)
        (folder / "scalars.json").write_text("\n".join(map(json.dumps, records)))

    def step(number: int, cls: float, time: float) -> dict[str, float]:
        return {"step": number, "loss": 99.0, "loss_cls": cls, "loss_bbox": 1.0, "loss_dfl": 0.5, "time": time}

    write("20260101_000000", [step(10, 1.0, 0.1), {"step": 1, "coco/bbox_mAP": 0.1}, step(20, 0.9, 0.2)])
    write("20260101_000100", [step(20, 0.5, 0.3), {"step": 2, "coco/bbox_mAP": 0.2}])
    curves = read_curves(tmp_path, steps_per_epoch=10)
    # The detection losses alone, and of step 20 what the later run says.
    assert curves == {"loss": [[1.0, 2.5], [2.0, 2.0]], "val_ap": [[1, 0.1], [2, 0.2]], "step_s": 0.2}
    assert read_curves(tmp_path / "nothing", steps_per_epoch=10) == {"loss": [], "val_ap": [], "step_s": None}


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (84, "1:24"), (3600, "60:00")])
def test_minutes(seconds: float, text: str) -> None:
    assert minutes(seconds) == text
