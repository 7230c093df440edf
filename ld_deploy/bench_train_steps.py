"""What `bench_train` times: whole training steps and the teacher alone, each on the same batch."""

from __future__ import annotations

from functools import partial
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, Protocol

import torch
from mmengine.optim import build_optim_wrapper

from ld_runtime.bench import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mmengine.config import Config

    from ld_deploy.bench_train_batch import TrainBatch
    from ld_deploy.distill.teacher import FrozenTeacher


FIRST_RUNS = 2  # before the warm-up looks at the times: memory is allocated here
MIN_TURNS = 5
# `cpu` is the time that this process had a processor, over its threads: what others do on the machine is not in it.
CLOCKS: dict[str, Callable[[], float]] = {"wall": perf_counter, "cpu": process_time}
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Runner(Protocol):
    """Something that is timed: a call does its work once and gives its spans in ms."""

    name: str

    def __call__(self) -> dict[str, float]: ...  # noqa: D102


class Stopwatch:
    """Times of the stages of one piece of work on a device, in ms. It starts when it is made.

    On a GPU the device is waited for at the start and at the end; the stages between are told apart by events, which
    do not hold the work up.

    Args:
        device: where the work is done.
        clock: a key of `CLOCKS`.
    """

    def __init__(self, device: torch.device, *, clock: str = "wall") -> None:
        self._clock = CLOCKS[clock]
        self._on_gpu = device.type == "cuda"
        self._stages: list[str] = []
        if self._on_gpu:
            torch.cuda.synchronize()
        self._start = self._clock()
        self._marks = [self._mark()]

    def _mark(self) -> Any:
        if not self._on_gpu:
            return self._clock()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stage_ends(self, name: str) -> None:
        """The stage since the last mark was `name`."""
        self._stages.append(name)
        self._marks.append(self._mark())

    def stop(self, total: str) -> dict[str, float]:
        """The stages, and the whole under the name `total`, in ms."""
        if self._on_gpu:
            torch.cuda.synchronize()
        whole = (self._clock() - self._start) * 1000
        pairs = zip(self._marks, self._marks[1:], strict=False)
        times = [one.elapsed_time(next_) if self._on_gpu else (next_ - one) * 1000 for one, next_ in pairs]
        return {**dict(zip(self._stages, times, strict=True)), total: whole}


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """In which the operations that allow it run in a precision of `PRECISIONS`; float32 changes nothing."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


class StepRunner:
    """One training step: forward with losses, backward, the optimiser with a learning rate of 0.

    Args:
        kind: gives the spans KIND_forward, KIND_backward and KIND_step; the student's has `optimiser` too.
        model: an mmdet detector on the batch's device, in train mode.
        batch: of every step.
        optim_wrapper: of the config.
        precision: of autocast around the forward; a key of `PRECISIONS`.
        clock: a key of `CLOCKS`.
        teacher: put in the place of the model's own for the step.
        suffix: ends the names of the spans.
    """

    def __init__(
        self,
        kind: str,
        model: Any,
        *,
        batch: TrainBatch,
        optim_wrapper: Config,
        precision: str = "float32",
        clock: str = "wall",
        teacher: FrozenTeacher | None = None,
        suffix: str = "",
    ) -> None:
        self.kind, self.suffix = kind, suffix
        self.name = f"{kind}_step{suffix}"
        self.losses: dict[str, float] = {}
        self._model, self._batch, self._teacher = model, batch, teacher
        self._precision, self._clock = precision, clock
        self._optim = build_optim_wrapper(model, optim_wrapper)
        for group in self._optim.optimizer.param_groups:
            group["lr"] = 0.0

    def __call__(self) -> dict[str, float]:  # noqa: D102 - the protocol says it
        if self._teacher is not None:
            self._model.teacher = self._teacher
        device = self._batch.inputs.device
        watch = Stopwatch(device, clock=self._clock)
        with autocast(device, self._precision):
            losses = self._model(self._batch.inputs, self._batch.data_samples, mode="loss")
            total, values = self._model.parse_losses(losses)
        watch.stage_ends(f"{self.kind}_forward{self.suffix}")
        self._optim.backward(self._optim.scale_loss(total))
        watch.stage_ends(f"{self.kind}_backward{self.suffix}")
        self._optim.step()
        self._optim.zero_grad()
        watch.stage_ends("optimiser")
        spans = watch.stop(self.name)
        if self.kind != "student":
            del spans["optimiser"]
        if not self.losses:
            self.losses = {name: value.item() for name, value in values.items()}
        return spans


class TeacherRunner:
    """A teacher's network alone.

    Args:
        name: of its only span.
        forward: from normalised images (N, 3, H, W) to its maps, without gradients.
        batch: of every run.
        precision: of autocast around it; a key of `PRECISIONS`. The forward may choose its own.
        clock: a key of `CLOCKS`.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[[torch.Tensor], Any],
        *,
        batch: TrainBatch,
        precision: str = "float32",
        clock: str = "wall",
    ) -> None:
        self.name = name
        self._forward, self._batch, self._precision, self._clock = forward, batch, precision, clock

    def __call__(self) -> dict[str, float]:  # noqa: D102
        device = self._batch.inputs.device
        watch = Stopwatch(device, clock=self._clock)
        with autocast(device, self._precision):
            self._forward(self._batch.inputs)
        return watch.stop(self.name)


def measure(
    runners: Sequence[Runner],
    *,
    steps: int | None = None,
    seconds: float = 60,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, tuple[int, bool]], list[dict[str, float]]]:
    """Warms up every runner, then lets all take turns; who begins changes from turn to turn.

    Args:
        runners: their spans have different names.
        steps: turns; None: as many as start within `seconds`, at least `MIN_TURNS`.
        seconds: of all turns together, and the limit of the warm-up.
        progress: is told what happens.

    Returns:
        By runner the runs of its warm-up and whether it had settled; and the spans in ms of each turn.
    """
    warm_ups = {}
    for runner in runners:
        progress(f"warming up {runner.name}")
        for _ in range(FIRST_RUNS):
            runner()
        runs, settled = warm_up(partial(longest_span, runner), limit_s=seconds / len(runners))
        warm_ups[runner.name] = (FIRST_RUNS + runs, settled)
    turns: list[dict[str, float]] = []
    end = perf_counter() + seconds
    while len(turns) < (steps or MIN_TURNS) or (steps is None and perf_counter() < end):
        progress(f"turn {len(turns) + 1}{f' of {steps}' if steps else ''}")
        first = len(turns) % len(runners)
        turn: dict[str, float] = {}
        for runner in (*runners[first:], *runners[:first]):
            turn.update(runner())
        turns.append(turn)
    return warm_ups, turns


def longest_span(runner: Runner) -> float:
    """Runs once: the time of the whole, in ms."""
    return max(runner().values())
