"""The ceiling: operations of a known network by hand, and rates that order as the arithmetic does."""

from types import SimpleNamespace

import pytest
import torch

from ld_deploy import ceiling
from ld_runtime.bench_report import Ceiling


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
    monkeypatch.setattr(ceiling, "SIDE", 64)
    times = iter([0.0, 9.0, 10.0, 10.5, *[0.0, 1.0] * 20])
    monkeypatch.setattr(ceiling, "perf_counter", lambda: next(times))
    calls = []
    assert ceiling._rate(lambda: calls.append(1)) == 2 * 64**3 / 0.5
    assert len(calls) == ceiling.REPEATS + 1
    for product in ceiling._products().values():
        assert product().shape == (64, 64)  # type: ignore[attr-defined]
