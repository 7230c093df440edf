"""The ceiling: operations of a known network by hand, and rates that order as the arithmetic does."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from ld_deploy import ceiling
from ld_runtime.bench_report import Ceiling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_operations_by_hand() -> None:
    # 3 -> 8 channels, 3 x 3, stride 2 on 32 x 64: 16 * 32 outputs a channel, each 27 products and sums; then 8 -> 4.
    backbone = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
    head = torch.nn.Conv2d(8, 4, 1)
    model = SimpleNamespace(extract_feat=backbone, bbox_head=head)
    assert ceiling.count_operations(model, (32, 64)) == 2 * (16 * 32 * 8 * 27 + 16 * 32 * 4 * 8)


def test_the_floor_by_hand() -> None:
    found = Ceiling(operations=4_000_000, canvas_hw=(32, 64), operations_per_second={"fp32": 2e9})
    assert found.floor_ms("fp32") == pytest.approx(2.0)
    assert found.floor_ms("int8") is None


def test_rates_are_of_the_whole_product(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 9.0, 10.0, 10.5, *[0.0, 1.0] * 20])
    monkeypatch.setattr(ceiling, "perf_counter", lambda: next(times))
    calls = []
    assert ceiling._rate(lambda: calls.append(1), side=64) == 2 * 64**3 / 0.5
    assert len(calls) == ceiling.REPEATS + 1
    for product in ceiling._products(64).values():
        assert product().shape == (64, 64)  # type: ignore[attr-defined]


def test_an_emulated_precision_is_measured_by_a_small_product(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sides: list[tuple[str, int]] = []

    def rate(product: Callable[[], str], *, side: int) -> float:
        sides.append((product(), side))
        return {"fp32": 9e10, "int8": 1e9}[product()]

    monkeypatch.setattr(ceiling, "reference_model", lambda *_, **__: (None, None))
    monkeypatch.setattr(ceiling, "count_operations", lambda *_: 7)
    monkeypatch.setattr(ceiling, "_products", lambda _: {"fp32": lambda: "fp32", "int8": lambda: "int8"})
    monkeypatch.setattr(ceiling, "_rate", rate)
    found = ceiling.measure_ceiling(tmp_path, canvas_hw=(32, 64))
    assert found.operations_per_second == {"fp32": 9e10, "int8": 1e9}
    assert sides == [("fp32", ceiling.SMALL_SIDE), ("int8", ceiling.SMALL_SIDE), ("fp32", ceiling.SIDE)]
