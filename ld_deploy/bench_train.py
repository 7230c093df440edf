"""What distillation costs: the training step of a distilled student against its student and its teacher alone.

Spans, each on one fixed batch that is already on the device, in ms:
    student_step: the plain student: forward and detection losses (`student_forward`), `student_backward`, `optimiser`
    teacher_forward: the frozen teacher's network alone, as the distillation runs it
    distilled_step: the same as student_step for the distilled detector, its teacher live
    distilled_step_cached: with the teacher's outputs read from its cache
    mmdet_*: the same of mmdet's own LD, same weights and batch
    data: reading a batch in this process, no worker helping, to the device

The bound of a distilled step is student_step + teacher_forward: no work but that of the two. Every runner is warmed up,
then all take turns, so that a noisy machine hurts all alike, and ratios are taken turn by turn. The learning rate is 0:
each step does the optimiser's work and leaves the weights, so that all steps are the same.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

import ld_deploy.models  # noqa: F401 - registers the components that configs name
from ld_deploy.bench_train_batch import DataRunner, TrainBatch, random_batch
from ld_deploy.bench_train_mmdet import mmdet_runners, why_not_mmdet
from ld_deploy.bench_train_steps import CLOCKS, PRECISIONS, StepRunner, TeacherRunner, measure
from ld_deploy.checkpoint import TRAINING_ONLY, load_model, without_pretrained
from ld_deploy.config import DISTILLED, load_config, student_only
from ld_runtime.errors import BackendMissingError, CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ld_deploy.bench_train_steps import Runner


@dataclass(frozen=True)
class TrainBenchSettings:
    """How a training step is timed.

    Args:
        batch_size: images; None: the config's.
        steps: turns of each runner; None: as many as `seconds` allow.
        seconds: of all turns together; the warm-up takes as long at most.
        input_hw: height and width in pixels of random images, in place of the config's data; None: its data.
        teacher_precisions: the first is that of `distilled_step`, each further one has spans with its name behind them;
            empty: the teacher's own.
        device: `cpu`, `cuda` or `cuda:N`.
        amp: precision of autocast around every model, mmdet's too; None: float32.
        channels_last: the memory format of every model and of the images; without it, only our teacher has it.
        clock: `wall`, or `cpu`: the processor time of this process, for a machine that others use too, with one thread.
        cache: also time a step that reads the teacher's outputs from a cache, for a teacher without a cache folder.
        random_weights: the teacher's weights are random, its checkpoint is not read.
    """

    batch_size: int | None = None
    steps: int | None = None
    seconds: float = 60
    input_hw: tuple[int, int] | None = None
    teacher_precisions: tuple[str, ...] = ()
    device: str = "cpu"
    amp: str | None = None
    channels_last: bool = False
    clock: str = "wall"
    cache: bool = False
    random_weights: bool = False


@dataclass(frozen=True)
class TrainMeasurement:
    """What was measured.

    Args:
        turns: the spans in ms of each turn, in order.
        warm_ups: by runner, its runs before the clock started and whether its times had settled.
        losses: by runner, what its first step computed.
        batch: that every step was about.
        precisions: of the teacher, the first that of `distilled_step`.
        recipe: of the distillation.
        terms: names of the distillation's terms.
        without_mmdet: why mmdet's LD was not timed; None where it was.
    """

    turns: Sequence[Mapping[str, float]]
    warm_ups: Mapping[str, tuple[int, bool]]
    losses: Mapping[str, Mapping[str, float]]
    batch: TrainBatch
    precisions: Sequence[str]
    recipe: str
    terms: Sequence[str]
    without_mmdet: str | None


def bench_train(
    config: str | Path | Config,
    *,
    settings: TrainBenchSettings,
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainMeasurement:
    """Times the training step of a distilled student's config.

    The student starts from random weights: its training step takes the same time with any.

    Args:
        config: path, `mmdet::` name or config.
        settings: see there.
        overrides: dotted keys of the config and their values.
        progress: is told what happens.

    Raises:
        ConfigError: The config has no teacher, or cannot be used as it is.
        DataError: The training data is not there.
        CheckpointError: The teacher's weights cannot be read.
        BackendMissingError: torch does not see the device.
    """
    source = load_config(config)
    config = Config(source.to_dict(), filename=source.filename)
    config.merge_from_dict(dict(overrides or {}))
    if config.model.type != DISTILLED:
        message = (
            f"{config.filename or 'the config'} has no teacher: give the config of a distilled student, such as "
            "configs/demo/ld_student.py"
        )
        raise ConfigError(message)
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendMissingError(f"device {settings.device} was asked for and torch sees no GPU: use --device cpu")
    for precision in filter(None, (*settings.teacher_precisions, settings.amp)):
        if precision not in PRECISIONS:
            raise ConfigError(f"a precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if settings.clock not in CLOCKS or (settings.clock == "cpu" and settings.device != "cpu"):
        raise ConfigError(
            f"the clock is wall, or on --device cpu also cpu; got {settings.clock!r} on {settings.device}"
        )
    init_default_scope(config.get("default_scope", "mmdet"))
    torch.backends.cudnn.benchmark = bool(config.get("env_cfg", {}).get("cudnn_benchmark", False))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench_train_")))
        progress("building the models")
        model = build_distilled(config, settings=settings, folder=folder)
        return _measure_models(model, config, settings=settings, folder=folder, progress=progress)


def build_distilled(config: Config, *, settings: TrainBenchSettings, folder: Path) -> Any:
    """The distilled detector on the device, in train mode; a random teacher's checkpoint goes to `folder`."""
    without_pretrained(config.model)
    torch.manual_seed(0)
    if settings.random_weights:
        teacher = load_model(config.model.teacher.config, None)
        config.model.teacher.checkpoint = str(folder / "teacher.pth")
        torch.save({"state_dict": teacher.state_dict(), "meta": {}}, config.model.teacher.checkpoint)
    try:
        model: Any = MODELS.build(config.model)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; or give --random-weights, which take the same time") from error
    return model.to(settings.device).train()


def _measure_models(
    model: Any, config: Config, *, settings: TrainBenchSettings, folder: Path, progress: Callable[[str], None]
) -> TrainMeasurement:
    runners: list[Runner] = []
    if settings.input_hw is None:
        data = DataRunner(config, model.data_preprocessor, batch_size=settings.batch_size, clock=settings.clock)
        runners.append(data)
        batch = data.first
    else:
        batch = random_batch(
            model.data_preprocessor,
            input_hw=settings.input_hw,
            images=settings.batch_size or config.train_dataloader.batch_size,
            classes=model.bbox_head.num_classes,
        )
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    if settings.channels_last:  # the other format would be the teacher's too
        model.to(memory_format=memory_format)
    batch = replace(batch, inputs=batch.inputs.contiguous(memory_format=memory_format))
    training_precision = settings.amp or "float32"
    common = {
        "batch": batch,
        "optim_wrapper": config.optim_wrapper,
        "precision": training_precision,
        "clock": settings.clock,
    }

    plain: Any = MODELS.build(student_only(config).model)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(TRAINING_ONLY)}
    plain.load_state_dict(state)
    plain.to(settings.device).to(memory_format=memory_format).train()
    runners.append(StepRunner("student", plain, **common))

    own = model.teacher.precision
    precisions = settings.teacher_precisions or (training_precision if own == "training" else own,)
    precisions = tuple(dict.fromkeys(precisions))
    cache_folder = model.teacher.cache_folder or (str(folder / "cache") if settings.cache else None)
    for place, precision in enumerate(precisions):
        suffix = f"_{precision}" if place else ""
        teacher = replace(model.teacher, precision=precision, cache_folder=None)
        runners.append(TeacherRunner(f"teacher_forward{suffix}", teacher.compute, batch=batch, clock=settings.clock))
        runners.append(StepRunner("distilled", model, teacher=teacher, suffix=suffix, **common))
        if cache_folder and not place:
            cached = replace(teacher, cache_folder=cache_folder)
            runners.append(StepRunner("distilled", model, teacher=cached, suffix="_cached", **common))
    without_mmdet = why_not_mmdet(config)
    if without_mmdet is None:
        runners += mmdet_runners(
            config, student=plain, teacher=model.teacher.module, memory_format=memory_format, common=common
        )

    warm_ups, turns = measure(runners, steps=settings.steps, seconds=settings.seconds, progress=progress)
    return TrainMeasurement(
        turns=turns,
        warm_ups=warm_ups,
        losses={runner.name: runner.losses for runner in runners if isinstance(runner, StepRunner)},
        batch=batch,
        precisions=precisions,
        recipe=model.distillation.recipe,
        terms=[term.loss_name for term in model.distillation.terms],
        without_mmdet=without_mmdet,
    )
