"""What the benchmark counts, with runners whose times and detections are known. No assertion on a real time."""

from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from ld_runtime import bench
from ld_runtime.bench import Latency, engine_rates, measure, warm_up
from ld_runtime.bench_report import (
    Ceiling,
    latency_table,
    list_sha256,
    peak_rss_mb,
    precision_table,
    rate_table,
    to_json_content,
)
from ld_runtime.engines import ModelSpec
from ld_runtime.errors import InputError
from ld_runtime.gpu_state import GpuState
from ld_runtime.precision_proof import PrecisionProof, TypeShares

IMAGES = [Path("wide.jpg"), Path("tall.jpg"), Path("wide2.jpg")]


class Clock:
    """Stands still but for what the runners say that they take."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bench, "perf_counter", clock)
    return clock


class Staged:
    """1 ms to decode, 2 to preprocess, 4 + 6 an image in the engine, 8 to finish; two detections an image."""

    settings: dict[str, str | int | float] = {}  # noqa: RUF012

    def __init__(self, clock: Clock, name: str = "staged", log: list[str] | None = None) -> None:
        self.clock, self.name, self.log, self.batches = clock, name, log if log is not None else [], []

    def decode(self, path: Path) -> str:
        self.clock.now += 0.001
        return path.stem

    def preprocess(self, image: str) -> str:
        self.clock.now += 0.002
        return image

    def canvas_hw(self, prepared: str) -> tuple[int, int]:
        return (2, 1) if prepared == "tall" else (1, 2)

    def engine(self, prepared: Sequence[str]) -> list[str]:
        self.clock.now += 0.004 + 0.006 * len(prepared)
        self.log.append(self.name)
        self.batches.append(list(prepared))
        return list(prepared)

    def finish(self, outputs: list[str], prepared: Sequence[str]) -> int:
        assert outputs == list(prepared)
        self.clock.now += 0.008
        return 2 * len(outputs)


class Whole:
    name = "whole"
    settings: dict[str, str | int | float] = {}  # noqa: RUF012

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def detect(self, _path: Path) -> int:
        self.clock.now += 0.042
        return 5


def test_spans_and_rates_by_hand(clock: Clock) -> None:
    staged, whole = measure([Staged(clock), Whole(clock)], IMAGES, seconds=1.0, batch_sizes=(1, 4))
    # preprocess 2, engine 4 + 6, end to end 1 + 2 + 10 + 8.
    medians = {span: latency.median_ms for span, latency in staged.spans.items()}
    assert medians == pytest.approx({"preprocess": 2.0, "engine": 10.0, "end_to_end": 21.0})
    assert staged.fps == pytest.approx(1000 / 21)
    assert staged.images_per_second == pytest.approx({1: 1000 / 10, 4: 4 * 1000 / 28})
    assert staged.mean_detections == 2
    assert (staged.warm_up_runs, staged.settled) == (20, True)
    assert {span: latency.median_ms for span, latency in whole.spans.items()} == pytest.approx({"end_to_end": 42.0})
    assert whole.images_per_second == {}
    assert whole.mean_detections == 5
    # 1 s in ten rounds of 0.1 s: five images of 21 ms a round.
    assert staged.spans["engine"].n == 50


class OnDevice(Staged):
    """Its GPU tells 3 ms for the network and 5 with the copies."""

    def device_spans(self) -> dict[str, float]:
        return {"network": 3.0, "device": 5.0}


def test_the_gpus_own_spans_stand_beside_the_clocks(clock: Clock) -> None:
    on_device, plain = measure([OnDevice(clock, "gpu"), Staged(clock)], IMAGES, seconds=0.5, batch_sizes=())
    assert list(on_device.spans) == ["preprocess", "engine", "network", "device", "end_to_end"]
    assert on_device.spans["network"].median_ms == 3.0
    assert on_device.spans["device"].median_ms == 5.0
    assert on_device.spans["engine"].median_ms == pytest.approx(10.0)
    assert on_device.spans["network"].n == on_device.spans["engine"].n
    assert list(plain.spans) == ["preprocess", "engine", "end_to_end"]
    assert latency_table([plain, on_device]).row_count == 8


def test_the_gpu_is_read_after_the_warm_up_and_each_round(clock: Clock) -> None:
    runner = Staged(clock)
    seen: list[int] = []
    measure([runner], IMAGES, seconds=0.5, batch_sizes=(1,), after_round=lambda: seen.append(len(runner.batches)))
    assert len(seen) == 11
    assert seen[0] == 20  # the warm-up
    assert seen == sorted(set(seen))


def test_clocks_and_types_are_in_json_and_table(clock: Clock) -> None:
    measurements = measure([Staged(clock)], IMAGES, seconds=0.5, batch_sizes=())
    state = GpuState(False, ("slowed down by power cap",))
    proofs = {"staged": PrecisionProof(graph=TypeShares.of(layers=["fp16"], tensors=["fp16"]), remark="no GPU")}
    content = to_json_content(measurements, images=[], settings={}, proofs=proofs, gpu_state=state)
    assert content["stable"] is False
    assert content["gpu_state"]["reasons"] == ("slowed down by power cap",)
    assert content["precision_proofs"]["staged"]["graph"]["layers"] == {"fp16": 1.0}
    assert "UNSTABLE, do not quote: slowed down by power cap" in str(
        latency_table(measurements, gpu_state=state).caption
    )
    assert precision_table({**proofs, "other": PrecisionProof(remark="unknown")}).row_count == 2
    extra = "pip install 'ld-deploy[gpu]'"  # brackets are markup to the table
    console = Console(width=200, record=True, file=StringIO())
    console.print(latency_table(measurements, gpu_state=GpuState(None, (extra,))))
    console.print(precision_table({"other": PrecisionProof(remark=extra)}))
    assert console.export_text().count(extra) == 2
    plain = to_json_content(measurements, images=[], settings={})
    assert not {"stable", "gpu_state", "precision_proofs"} & plain.keys()


def test_runners_take_turns(clock: Clock) -> None:
    log: list[str] = []
    measure([Staged(clock, "a", log), Staged(clock, "b", log)], IMAGES, seconds=0.021 * 20, batch_sizes=())
    spans = log[40:]  # after twenty warm-up images each
    turns = [name for name, before in zip(spans, [None, *spans], strict=False) if name != before]
    assert turns == ["a", "b"] * 10


def test_batches_hold_one_canvas_size(clock: Clock) -> None:
    runner = Staged(clock)
    engine_rates([runner], IMAGES, 3, 0.1)
    assert runner.batches
    assert all(len(batch) == 3 and "tall" not in batch for batch in runner.batches)
    assert {name for batch in runner.batches for name in batch} == {"wide", "wide2"}


def test_latency_keeps_every_sample() -> None:
    # 0..100 ms: percentiles are the numbers themselves; an outlier is in the mean.
    latency = Latency.of([float(value) for value in range(101)])
    assert (latency.median_ms, latency.p90_ms, latency.p99_ms, latency.mean_ms, latency.n) == (50, 90, 99, 50, 101)
    assert Latency.of([1.0, 1.0, 1000.0]).mean_ms == 334
    assert latency.quantiles_ms == pytest.approx({percent: percent for percent in (*range(0, 100, 5), 99, 100)})
    assert Latency.of([7.0]) == Latency(7.0, 7.0, 7.0, 7.0, 1, dict.fromkeys(latency.quantiles_ms, 7.0))


def test_warm_up_ends_when_times_settle(clock: Clock) -> None:
    # Ten of 100 ms, then 10 ms: settled when twenty in a row are alike.
    times = count()
    assert warm_up(lambda: 100.0 if next(times) < 10 else 10.0, limit_s=1e9) == (26, True)


def test_warm_up_is_bounded(clock: Clock) -> None:
    def slower() -> float:
        clock.now += 1
        return 2.0**clock.now

    assert warm_up(slower, limit_s=30) == (30, False)


def test_nothing_to_measure_is_an_error(clock: Clock) -> None:
    with pytest.raises(InputError, match="got 0 and 3"):
        measure([], IMAGES)
    with pytest.raises(InputError, match="got 1 and 0"):
        measure([Staged(clock)], [])


def test_the_list_hash_is_of_contents_in_order(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    before = list_sha256([one, two])
    assert list_sha256([two, one]) != before
    renamed = one.rename(tmp_path / "other")
    assert list_sha256([renamed, two]) == before
    renamed.write_bytes(b"changed")
    assert list_sha256([renamed, two]) != before


def test_ratios_are_against_the_first(clock: Clock) -> None:
    measurements = measure([Staged(clock), Whole(clock)], IMAGES, seconds=0.5, batch_sizes=(1,))
    content = to_json_content(measurements, images=[], settings={"seconds": 0.5})
    assert content["ratios"] == [{"name": "whole", "of": "staged", "end_to_end": pytest.approx(2.0)}]
    assert latency_table(measurements).row_count == 4
    assert rate_table(measurements).row_count == 2


def test_references_come_from_entry_points(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    from ld_runtime.commands import bench as command
    from ld_runtime.errors import BackendMissingError

    asked = []
    entry = SimpleNamespace(
        load=lambda: (
            lambda checkpoint, device, *, compiled: asked.append((checkpoint, device, compiled)) or [Whole(clock)]
        )
    )
    monkeypatch.setattr(
        command, "entry_points", lambda *, group: [entry] if group == "ld_deploy.bench_references" else []
    )
    (runner,) = command.reference_runners(Path("a.pth"), device="cpu")
    assert runner.name == "whole"
    command.reference_runners(Path("a.pth"), device="cuda", compiled=True)
    assert asked == [(Path("a.pth"), "cpu", False), (Path("a.pth"), "cuda", True)]
    monkeypatch.setattr(command, "entry_points", lambda **_: [])
    with pytest.raises(BackendMissingError, match=r"pip install 'ld-deploy\[train\]'"):
        command.reference_runners(Path("a.pth"), device="cpu")


def test_peak_memory_is_of_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def run(arguments: list[str], **_: object) -> SimpleNamespace:
        calls.append(arguments[3:])
        return SimpleNamespace(returncode=0, stdout="2000\n")

    monkeypatch.setattr("ld_runtime.bench_report.subprocess.run", run)
    monkeypatch.setattr("ld_runtime.bench_report.platform.system", lambda: "Linux")
    spec = ModelSpec(Path("s.onnx"), "openvino", "bf16")
    assert peak_rss_mb(spec, device="cpu", nms="graph", image=Path("a.jpg")) == 2.048
    assert peak_rss_mb(ModelSpec(Path("s.onnx")), device="cuda", nms=None, image=Path("a.jpg")) == 2.048
    assert calls == [
        ["s.onnx", "cpu", "openvino", "bf16", "graph", "a.jpg"],
        ["s.onnx", "cuda", "", "", "", "a.jpg"],
    ]


def test_the_share_of_the_ceiling(clock: Clock) -> None:
    (found,) = measure([Staged(clock)], IMAGES, seconds=0.1)
    found = replace(found, settings={"precision": "fp32"})
    other = replace(found, name="other", settings={"precision": "int4"})
    ceiling = Ceiling(operations=2_000_000, canvas_hw=(1, 1), operations_per_second={"fp32": 1e9})
    content = to_json_content([found, other], images=[], settings={}, ceiling=ceiling)["ceiling"]
    assert found.spans["engine"].median_ms == pytest.approx(10)
    (row,) = content["runners"]  # a precision that was not measured has no floor
    assert row["floor_ms"] == 2
    assert row["share_of_ceiling"] == pytest.approx(0.2)
