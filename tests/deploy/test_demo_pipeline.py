"""The whole demo at its smallest scale: interrupted, resumed, complete, and nothing done twice."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ld_deploy.demo.pipeline import ROLES, TITLES, Demo, StageBook, run_demo
from ld_deploy.demo.scales import SCALES
from ld_deploy.demo.screen import Screen
from ld_deploy.demo.stages import StageResult
from ld_runtime.errors import ConfigError

CONFIGS = Path(__file__).parents[2] / "configs" / "demo"


def test_an_interrupted_training_goes_on(demo_run: Any) -> None:
    assert demo_run.first_step == demo_run.epoch_steps
    content = json.loads((demo_run.output / "stages" / "teacher.json").read_text())["content"]
    assert content["steps"] == 4 * demo_run.epoch_steps
    assert [epoch for epoch, _ in content["curves"]["val_ap"]] == [2, 4]


def test_the_screen_shows_each_stage_and_the_table(demo_run: Any) -> None:
    for number, title in enumerate(TITLES.values(), start=1):
        if title != TITLES["seeds"]:
            assert f"[{number:>2}/{len(TITLES)}] {title}" in demo_run.screen
    assert "done before" in demo_run.screen.splitlines()[0]  # the data set was there
    assert "LD student" in demo_run.screen
    assert "Distillation" in demo_run.screen
    assert "mmengine" not in demo_run.screen
    assert "mmengine" in (demo_run.output / "log.txt").read_text()


def test_the_report_holds_what_was_measured(demo_run: Any) -> None:
    document = json.loads((demo_run.output / "report.json").read_text())
    *rows, quantized = document["rows"]
    assert [row["role"] for row in rows] == list(ROLES)
    assert quantized["role"] == "ld_student.int8"
    assert quantized["fps"] > 0
    for row in rows:
        assert 0 <= row["ap"] <= 1
        assert abs(row["onnx_ap_difference"]) <= 0.0002
        assert row["matched_share"] >= 0.999
        assert row["fps"] > 0
    assert document["rows"][0]["parameters"] > document["rows"][1]["parameters"] == document["rows"][2]["parameters"]
    text = (demo_run.output / "report.md").read_text()
    for verdict in document["verdicts"]:
        assert verdict in text
    for picture in ("detections", "training", "spans"):
        assert f"](pictures/{picture}.png)" in text
        assert (demo_run.output / "pictures" / f"{picture}.png").read_bytes().startswith(b"\x89PNG")


def test_what_the_commands_take_is_there(demo_run: Any) -> None:
    assert (demo_run.output / "ld_student.int8.onnx").is_file()
    for role in ROLES:
        for name in (f"configs/{role}.py", f"{role}/last.pth", f"{role}.onnx", f"verify/{role}.json"):
            assert (demo_run.output / name).is_file()
    found = json.loads((demo_run.output / "detections" / "detections.json").read_text())
    assert len(found["images"]) == SCALES["tiny"].render.num_test


def test_verification_covers_sizes_that_are_padded(demo_run: Any) -> None:
    assert json.loads((demo_run.output / "verify" / "ld_student.json").read_text())["sizes_no_multiple_of_divisor"] > 0


def test_nothing_is_done_twice_and_what_is_lost_is_done_again(demo_run: Any) -> None:
    assert demo_run.call().count("done before") == len(TITLES) - 1
    (demo_run.output / "report.md").unlink()
    again = demo_run.call()
    assert again.count("done before") == len(TITLES) - 2
    assert (demo_run.output / "report.md").is_file()


def test_missing_configs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.py: run in a checkout of the project, or name --configs"):
        run_demo(tmp_path / "out", scale=SCALES["tiny"], configs=tmp_path, console=Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("budget_s", "seeds"), [(1000, [1, 2]), (470, [1]), (439, []), (440, [1])])
def test_further_seeds_run_while_the_budget_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget_s: float, seeds: list[int]
) -> None:
    """Stages so far took 200 s, a pair of students takes 120 s, and 120 s are still to come."""
    stream = io.StringIO()
    scale = replace(SCALES["full"], budget_s=budget_s)
    demo = Demo(tmp_path, scale=scale, configs=CONFIGS, screen=Screen(Console(file=stream, width=200), stages=10))
    demo.book = StageBook(tmp_path)
    for name, elapsed_s in (("teacher", 80.0), ("student", 50.0), ("ld_student", 70.0)):
        demo.book.results[name] = StageResult("", {}, elapsed_s=elapsed_s)
    monkeypatch.setattr(demo, "remaining_s", lambda: 120.0)
    trained: list[tuple[str, int]] = []

    def train(role: str, *, seed: int) -> None:
        trained.append((role, seed))
        demo.book.results[f"{role}_seed{seed}"] = StageResult("", {}, elapsed_s=60.0)

    monkeypatch.setattr(demo, "train", train)
    demo.further_seeds()
    assert trained == [(role, seed) for seed in seeds for role in ("student", "ld_student")]
    assert ("none more" in stream.getvalue()) == (len(seeds) < 2)
