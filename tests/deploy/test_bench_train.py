"""The benchmark of a training step: its spans, its ratios by hand, and the same work as mmdet's own LD."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from mmengine.config import Config
from typer.testing import CliRunner

from ld_deploy import bench_train_steps
from ld_deploy.bench_train import TrainBenchSettings, TrainMeasurement, bench_train, build_distilled
from ld_deploy.bench_train_batch import DataRunner, TrainBatch, random_batch
from ld_deploy.bench_train_mmdet import mmdet_models
from ld_deploy.bench_train_report import Ratio, ratios, sentence, to_json_content
from ld_deploy.bench_train_steps import Stopwatch, measure
from ld_deploy.checkpoint import load_model
from ld_deploy.commands.bench_train import bench_train as command
from ld_deploy.commands.bench_train import parse_size
from ld_runtime.errors import BackendMissingError, CheckpointError, ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

STUDENT = ("student_step", "student_forward", "student_backward", "optimiser")
DISTILLED = ("distilled_step", "distilled_forward", "distilled_backward")
MMDET = ("mmdet_student_step", "mmdet_teacher_forward", "mmdet_ld_step")


@pytest.fixture(scope="module")
def distilled(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny student, distilled from a teacher of its own form whose checkpoint is not there."""
    text = f"""
_base_ = {str(tiny_config)!r}
model = dict(
    type='DistilledDetector',
    teacher=dict(config={str(tiny_config)!r}, checkpoint='nowhere.pth'),
    distill=[
        dict(type='LocalizationKD', region='main', weight=1.5, temperature=10),
        dict(type='LocalizationKD', region='vlr', weight=0.4, temperature=10),
        dict(type='ClassificationKD', region='main', weight=5, temperature=2)])
"""
    path = tmp_path_factory.mktemp("bench_train") / "distilled.py"
    path.write_text(text, encoding="utf-8")
    return path


def run(config: Path | Config, **changes: Any) -> TrainMeasurement:
    settings = {"steps": 2, "seconds": 0.01, "random_weights": True, "batch_size": 2, **changes}
    return bench_train(config, settings=TrainBenchSettings(**settings))


def test_spans_on_real_images(distilled: Path) -> None:
    found = run(distilled, cache=True, teacher_precisions=("float32", "bfloat16"))
    assert len(found.turns) == 2
    expected = {*STUDENT, *DISTILLED, *MMDET, "data", "teacher_forward", "distilled_step_cached"}
    expected |= {"teacher_forward_bfloat16", "distilled_step_bfloat16"}
    for turn in found.turns:
        assert expected <= set(turn)
        assert all(value > 0 for value in turn.values())
        assert sum(turn[span] for span in STUDENT[1:]) <= turn["student_step"]
    assert (found.batch.source, len(found.batch.data_samples)) == ("train set", 2)
    assert found.batch.inputs.shape[:2] == (2, 3)
    assert found.batch.box_count == 2
    assert found.terms == ["loss_ld_main", "loss_ld_vlr", "loss_kd_main"]
    assert set(found.losses["distilled_step"]) >= {*found.terms, "loss_cls", "loss_bbox", "loss_dfl"}
    assert found.losses["student_step"]["loss_cls"] == found.losses["distilled_step"]["loss_cls"]
    # The cache holds float16.
    assert found.losses["distilled_step_cached"]["loss_ld_main"] == pytest.approx(
        found.losses["distilled_step"]["loss_ld_main"], rel=1e-2
    )


def test_random_images_of_a_size(distilled: Path) -> None:
    found = run(distilled, input_hw=(64, 90), batch_size=3)
    assert found.batch.source == "random"
    assert found.batch.inputs.shape == (3, 3, 64, 96)  # padded to a multiple of 32
    assert all("data" not in turn for turn in found.turns)
    for sample in found.batch.data_samples:
        boxes = sample.gt_instances.bboxes
        assert bool((boxes >= 0).all())
        assert bool((boxes[:, 2:] <= torch.tensor([90.0, 64.0]) + 1e-4).all())
        assert float((boxes[:, 2:] - boxes[:, :2]).min()) >= 16 - 1e-3


def test_autocast_is_around_every_model(distilled: Path) -> None:
    plain, half = run(distilled), run(distilled, amp="bfloat16", channels_last=True)
    assert set(half.turns[0]) == set(plain.turns[0])
    assert (plain.precisions, half.precisions) == (("float32",), ("bfloat16",))
    for name, losses in plain.losses.items():
        assert half.losses[name]["loss"] == pytest.approx(losses["loss"], rel=0.05)
        assert half.losses[name]["loss"] != pytest.approx(losses["loss"], rel=1e-6)


def test_memory_format_is_that_of_every_model(trained_like: tuple[Config, Any]) -> None:
    config, model = trained_like
    plain, ld = mmdet_models(
        config,
        student=load_model(config, None),
        teacher=model.teacher.module,
        memory_format=torch.channels_last,
    )
    for detector in (plain, ld, ld.teacher_model, model.teacher.module):
        assert detector.backbone.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.backbone.conv1.weight.is_contiguous()


def test_steps_do_not_change_the_weights(distilled: Path, tmp_path: Path) -> None:
    config = Config.fromfile(distilled)
    settings = TrainBenchSettings(random_weights=True)
    model = build_distilled(config, settings=settings, folder=tmp_path)
    batch = random_batch(model.data_preprocessor, input_hw=(64, 64), images=2, classes=2)
    step = bench_train_steps.StepRunner("distilled", model, batch=batch, optim_wrapper=config.optim_wrapper)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    step()
    step()
    for old, new in zip(before, model.parameters(), strict=True):
        assert torch.equal(old, new)
    assert all(parameter.grad is None for parameter in model.parameters())


class Scripted:
    """A runner with given times, that writes down who ran."""

    def __init__(self, name: str, times_ms: Sequence[float], log: list[str]) -> None:
        self.name = name
        self._times, self._log = iter(times_ms), log

    def __call__(self) -> dict[str, float]:
        self._log.append(self.name)
        return {self.name: next(self._times)}


def test_runners_take_turns_and_another_one_begins_each_turn() -> None:
    log: list[str] = []
    warm_up_runs = bench_train_steps.FIRST_RUNS + 1  # no time for more
    runners = [Scripted(name, [99] * warm_up_runs + [10 * place + turn for turn in range(3)], log) for place, name in
               enumerate("abc")]  # fmt: skip
    warm_ups, turns = measure(runners, steps=3, seconds=0)
    assert warm_ups == dict.fromkeys("abc", (warm_up_runs, False))
    assert log[3 * warm_up_runs :] == [*"abc", *"bca", *"cab"]
    assert turns == [{"a": 0, "b": 10, "c": 20}, {"a": 1, "b": 11, "c": 21}, {"a": 2, "b": 12, "c": 22}]


def test_turns_end_with_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr(bench_train_steps, "warm_up", lambda *_, **__: (1, True))
    monkeypatch.setattr(bench_train_steps, "perf_counter", lambda: next(clock))
    # Read once for the end, 8, and before each turn after the fifth, when it says 1, 2, ... 8.
    _, turns = measure([Scripted("a", [1] * 50, [])], seconds=8)
    assert len(turns) == 5 + 7


def test_stopwatch_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((1.0, 1.0, 1.25, 2.0, 2.5))  # start, mark, two stages, stop
    monkeypatch.setitem(bench_train_steps.CLOCKS, "cpu", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"), clock="cpu")
    watch.stage_ends("first")
    watch.stage_ends("second")
    assert watch.stop("whole") == {"first": 250.0, "second": 750.0, "whole": 1500.0}


# Ratios of the turns: 110 / 100, 240 / 200, 130 / 130; medians: 130 over 60 + 50.
TURNS = [
    {"student_step": 60.0, "teacher_forward": 40.0, "distilled_step": 110.0},
    {"student_step": 150.0, "teacher_forward": 50.0, "distilled_step": 240.0},
    {"student_step": 50.0, "teacher_forward": 80.0, "distilled_step": 130.0},
]


def test_ratio_by_hand() -> None:
    (found,) = ratios(TURNS)
    assert (found.name, found.of, found.over) == (
        "ratio_to_bound", "distilled_step", ("student_step", "teacher_forward"),
    )  # fmt: skip
    assert found.median == pytest.approx(1.1)
    assert (found.p10, found.p90) == pytest.approx((1.02, 1.18))  # between 1.0, 1.1 and 1.2
    assert found.over_ms == pytest.approx(110)
    assert found.of_medians == pytest.approx(130 / 110)
    assert found.difference_ms == pytest.approx(10)  # of 10, 40 and 0
    assert found.n == 3
    assert sentence(found) == (
        "ratio_to_bound: distilled_step is 1.100 of student_step + teacher_forward "
        "(p10 1.020, p90 1.180 over 3 turns; of medians 1.182; +10.0 ms)"
    )


def test_ratios_are_those_that_the_spans_allow() -> None:
    spans = {
        **dict.fromkeys(("student_step", "teacher_forward", "mmdet_student_step", "mmdet_teacher_forward"), 100.0),
        "distilled_step": 220.0,
        "distilled_step_cached": 125.0,
        "teacher_forward_bfloat16": 50.0,
        "distilled_step_bfloat16": 180.0,
        "mmdet_ld_step": 275.0,
    }
    assert {ratio.name: ratio.median for ratio in ratios([spans])} == pytest.approx(
        {
            "ratio_to_bound": 1.1,
            "ratio_to_bound_bfloat16": 1.2,
            "cached_to_student": 1.25,
            "mmdet_ratio_to_bound": 1.375,
            "ours_to_mmdet": 0.8,
            "ours_to_mmdet_bfloat16": 180 / 275,
        }
    )


def test_json_by_hand() -> None:
    settings = TrainBenchSettings(seconds=1, input_hw=(32, 64))
    measurement = TrainMeasurement(
        turns=TURNS,
        warm_ups={"student_step": (20, True)},
        losses={},
        batch=TrainBatch(torch.zeros(2, 3, 32, 64), (), "random"),
        precisions=("float32",),
        recipe="default",
        terms=("loss_ld_main",),
        without_mmdet="because.",
    )
    content = json.loads(json.dumps(to_json_content(measurement, config="x.py", settings=settings, overrides={"a": 1})))
    assert content["derived"] == {"bound_ms": 110, "distillation_terms_ms": 10}
    student = content["spans"]["student_step"]
    assert student.pop("quantiles_ms")["100"] == 150
    assert student == {
        "median_ms": 60, "p90_ms": 132, "p99_ms": pytest.approx(148.2), "mean_ms": pytest.approx(260 / 3), "n": 3,
    }  # fmt: skip
    assert content["batch"] == {"data": "random", "input_shape": [2, 3, 32, 64], "ground_truth_boxes": 0}
    assert content["warm_up"] == {"student_step": {"runs": 20, "settled": True}}
    assert content["threads"] == torch.get_num_threads()
    assert content["precision"] == "float32"
    assert content["machine"]["versions"]["torch"]
    assert [Ratio(**{**ratio, "over": tuple(ratio["over"])}) for ratio in content["ratios"]] == ratios(TURNS)


@pytest.fixture(scope="module")
def trained_like(distilled: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Any]:
    """The distilled config and its model, sure enough of its classes that the weight sum is above 1."""
    config = Config.fromfile(distilled)
    model = build_distilled(
        config, settings=TrainBenchSettings(random_weights=True), folder=tmp_path_factory.mktemp("weights")
    )
    with torch.no_grad():
        model.bbox_head.gfl_cls.bias.fill_(1.0)
    return config, model


def test_mmdet_ld_computes_the_same_detection_losses(trained_like: tuple[Config, Any]) -> None:
    config, model = trained_like
    batch = DataRunner(config, model.data_preprocessor, batch_size=4).first
    student = load_model(config, None).train()
    student.load_state_dict(model.state_dict())
    plain, ld = mmdet_models(config, student=student, teacher=model.teacher.module)
    assert type(ld.bbox_head).__name__ == "LDHead"
    assert not ld.teacher_model.training
    losses = {}
    for name, detector in (("ours", model), ("plain", plain), ("ld", ld)):
        _, losses[name] = detector.parse_losses(detector(batch.inputs, batch.data_samples, mode="loss"))
    _, step = model.step(batch.inputs, batch.data_samples)
    # mmdet's LDHead divides by W + 1e-6, GFLHead by max(W, 1): the same here.
    assert (step.student.best_scores * step.positive).sum() > 1
    for key in ("loss_cls", "loss_bbox", "loss_dfl"):
        for other in ("plain", "ld"):
            torch.testing.assert_close(losses[other][key], losses["ours"][key], rtol=1e-4, atol=0)
    # Its LD is ours in the main region, unnormalised: 0.25 of the divergence that ours has 1.5 / W of.
    expected = losses["ours"]["loss_ld_main"] / 1.5 * step.weight_sum * 0.25
    torch.testing.assert_close(losses["ld"]["loss_ld"], expected, rtol=1e-3, atol=0)


def test_other_heads_are_timed_without_mmdet(distilled: Path) -> None:
    config = Config.fromfile(distilled)
    config.model.bbox_head.type = "GFLv2VotingHead"
    found = run(config, input_hw=(64, 64))
    assert found.without_mmdet == (
        "mmdet's own LD was not timed: it knows GFL alone, and the student's head is a GFLv2VotingHead."
    )
    assert set(found.turns[0]) == {*STUDENT, *DISTILLED, "teacher_forward"}


def test_what_cannot_be_timed_says_what_to_give(distilled: Path, tiny_config: Path) -> None:
    with pytest.raises(ConfigError, match=r"tiny\.py has no teacher: give the config of a distilled student, such as"):
        run(tiny_config)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint nowhere\.pth.*--random-weights"):
        run(distilled, random_weights=False)
    with pytest.raises(ConfigError, match="one of float32, bfloat16, got 'int8'"):
        run(distilled, teacher_precisions=("int8",))
    with pytest.raises(ConfigError, match="got 'sun' on cpu"):
        run(distilled, clock="sun")
    config = Config.fromfile(distilled)
    config.train_dataloader.dataset.ann_file = "nowhere.json"
    with pytest.raises(DataError, match=r"nowhere\.json.*--size HxW"):
        run(config)
    if not torch.cuda.is_available():
        with pytest.raises(BackendMissingError, match="--device cpu"):
            run(distilled, device="cuda")


@pytest.mark.parametrize("text", ["320", "320x", "0x320", "axb", "1x2x3"])
def test_bad_size(text: str) -> None:
    with pytest.raises(ConfigError, match=f"such as 320x416; got '{text}'"):
        parse_size(text)


def test_command_writes_the_json(distilled: Path, tmp_path: Path) -> None:
    import typer

    app = typer.Typer()
    app.command()(command)
    output = tmp_path / "out.json"
    arguments = [str(distilled), "--random-weights", "--steps", "2", "--seconds", "0.1", "--size", "64x64"]
    arguments += ["--batch-size", "2", "--clock", "cpu", "--set", "model.recipe=published", "-o", str(output)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    for text in ("ratio_to_bound: distilled_step is", "mmdet_ratio_to_bound:", "ours_to_mmdet:", "random, input (2, "):
        assert text in result.output
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["overrides"] == {"model.recipe": "published"}
    assert content["recipe"] == "published"
    assert content["settings"]["input_hw"] == [64, 64]
    assert content["settings"]["clock"] == "cpu"
    assert {span: latency["n"] for span, latency in content["spans"].items()} == dict.fromkeys(content["spans"], 2)
