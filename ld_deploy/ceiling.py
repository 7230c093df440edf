"""How fast could this processor run this network at best: its arithmetic against that of one large matrix product."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ld_deploy.bench_reference import reference_model
from ld_runtime.bench_report import Ceiling

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SIDE = 2048
REPEATS = 8
# A precision that the processor has no instructions for is emulated, and would take minutes: its rate is that of a
# small product, if that is less than so many operations a second.
SMALL_SIDE = 256
EMULATED = 5e9


def measure_ceiling(checkpoint: Path, *, canvas_hw: tuple[int, int], threads: int | None = None) -> Ceiling:
    """Counts the operations of a checkpoint's network and times matrix products on the CPU.

    Args:
        checkpoint: that `ld-deploy train` wrote, or a config.
        canvas_hw: height and width in pixels.
        threads: of the products; None takes every core.

    Raises:
        CheckpointError: The checkpoint cannot be read.
    """
    model, _ = reference_model(checkpoint, device="cpu")
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        rates = {name: _rate(product, side=SMALL_SIDE) for name, product in _products(SMALL_SIDE).items()}
        large = _products(SIDE)
        rates |= {name: _rate(large[name], side=SIDE) for name, rate in rates.items() if rate > EMULATED}
    finally:
        torch.set_num_threads(before)
    return Ceiling(count_operations(model, canvas_hw), canvas_hw, rates)


def count_operations(model: Any, canvas_hw: tuple[int, int]) -> int:
    """Multiplications and additions of convolutions and products in one forward pass of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.bbox_head(model.extract_feat(torch.zeros(1, 3, *canvas_hw)))
    return int(counter.get_total_flops())


def _products(side: int) -> dict[str, Callable[[], object]]:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(side, side, generator=generator) for _ in range(2))
    left_bf16, right_bf16 = left.bfloat16(), right.bfloat16()
    left_int8, right_int8 = ((one * 40).clamp(-127, 127).to(torch.int8) for one in (left, right))
    return {
        "fp32": lambda: left @ right,
        "bf16": lambda: left_bf16 @ right_bf16,
        "int8": lambda: torch._int_mm(left_int8, right_int8),
    }


def _rate(product: Callable[[], object], *, side: int) -> float:
    """Operations a second, the best of several: a ceiling is not an average."""
    product()
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        product()
        times.append(perf_counter() - start)
    return 2 * side**3 / min(times)
