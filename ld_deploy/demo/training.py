"""The demo's trainings: configs made for one output folder, resumable runs with a progress callback, curves."""

from __future__ import annotations

import json
import shutil
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmengine.config import Config
from mmengine.hooks import Hook

from ld_deploy.ap import ap_of
from ld_deploy.checkpoint import load_model
from ld_deploy.config import DISTILLED, load_config
from ld_deploy.demo.stages import Outcome
from ld_deploy.train import build_runner, evaluate, name_checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mmengine.runner import Runner

SPLITS = ("train", "val", "test")
DETECTION_LOSSES = ("loss_cls", "loss_bbox", "loss_dfl")
KEY_FILE = "demo_key.txt"


@dataclass(frozen=True)
class TrainingPlan:
    """One training of the demo.

    Args:
        name: of the stage and of its folder: `teacher`, `student`, `ld_student`, with `_seed1` and so on behind.
        config: the file under configs/ that it starts from.
        seed: of weights, order and augmentation.
        epochs: None takes the config's.
        batch_size: None takes the config's.
    """

    name: str
    config: Path
    seed: int = 0
    epochs: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True)
class Tick:
    """Where a training stands."""

    step: int
    steps: int
    loss: float | None = None
    ap: float | None = None


class TickHook(Hook):
    """Tells a callback where the training stands, after each step and each validation."""

    def __init__(self, tell: Callable[[Tick], None]) -> None:
        self._tell = tell

    def before_train(self, runner: Runner) -> None:  # noqa: D102 - mmengine's hook
        self._tell(Tick(runner.iter, runner.max_iters))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,  # noqa: ARG002 - mmengine's hook
        data_batch: Any = None,  # noqa: ARG002
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Mmengine calls this after each step."""
        loss = outputs["loss"].item() if outputs else None
        self._tell(Tick(runner.iter + 1, runner.max_iters, loss=loss))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:  # noqa: D102
        self._tell(Tick(runner.iter, runner.max_iters, ap=(metrics or {}).get("coco/bbox_mAP")))


def resolve_config(plan: TrainingPlan, *, output: Path) -> Config:
    """The plan's config with the data, teacher and sizes of this output folder."""
    overrides: dict[str, Any] = {"randomness.seed": plan.seed, "experiment_name": f"demo_{plan.name}"}
    for split in SPLITS:
        overrides[f"{split}_dataloader.dataset.data_root"] = f"{output / 'data'}/"
    for split in ("val", "test"):
        overrides[f"{split}_evaluator.ann_file"] = str(output / "data" / "annotations" / f"instances_{split}.json")
    if plan.epochs is not None:
        overrides |= {"train_cfg.max_epochs": plan.epochs, "train_cfg.val_interval": max(1, plan.epochs // 2)}
        overrides |= {
            "param_scheduler.0.end": 10,
            "param_scheduler.1.end": plan.epochs,
            "param_scheduler.1.T_max": plan.epochs,
        }
    if plan.batch_size is not None:
        overrides["train_dataloader.batch_size"] = plan.batch_size
    config = Config(load_config(plan.config).to_dict())
    if config.model.type == DISTILLED:
        overrides["model.teacher.config"] = str(config_path("teacher", output=output))
        overrides["model.teacher.checkpoint"] = str(checkpoint_path("teacher", output=output))
    config.merge_from_dict(overrides)
    return config


def config_path(name: str, *, output: Path) -> Path:
    """Of the config that a training of the demo used: every command of `ld-deploy` takes it."""
    return output / "configs" / f"{name}.py"


def checkpoint_path(name: str, *, output: Path) -> Path:
    """Of the weights at the end of a training."""
    return output / name / "last.pth"


def run_training(
    plan: TrainingPlan, config: Config, *, output: Path, key: str, tell: Callable[[Tick], None]
) -> Outcome:
    """Trains, or goes on from the last checkpoint of an interrupted run with the same key, and measures on test.

    Args:
        plan: what to train.
        config: from `resolve_config`.
        output: the demo's folder.
        key: of everything the training depends on: what another key left in the folder is removed.
        tell: is told where the training stands.

    Returns:
        AP on test, number of parameters, time of a step, curves.
    """
    work_dir = output / plan.name
    mark = work_dir / KEY_FILE
    if not mark.is_file() or mark.read_text(encoding="utf-8") != key:
        shutil.rmtree(work_dir, ignore_errors=True)
        work_dir.mkdir(parents=True)
        mark.write_text(key, encoding="utf-8")
    stored = config_path(plan.name, output=output)
    stored.parent.mkdir(parents=True, exist_ok=True)
    config.dump(str(stored))

    runner = build_runner(stored, work_dir=work_dir, resume=True)
    runner.register_hook(TickHook(tell), priority="VERY_LOW")
    runner.train()
    name_checkpoints(work_dir)
    checkpoint = checkpoint_path(plan.name, output=output)
    metrics = evaluate(
        stored, checkpoint, work_dir=work_dir / "test", overrides={"experiment_name": f"demo_{plan.name}_test"}
    )
    curves = read_curves(work_dir, steps_per_epoch=runner.max_iters / config.train_cfg.max_epochs)
    content = {
        "seed": plan.seed,
        "epochs": config.train_cfg.max_epochs,
        "steps": runner.max_iters,
        "step_s": curves.pop("step_s"),
        "parameters": sum(weights.numel() for weights in load_model(stored, checkpoint).parameters()),
        **ap_of(metrics),
        "curves": curves,
    }
    files = (str(stored.relative_to(output)), str(checkpoint.relative_to(output)))
    return Outcome(f"AP {content['ap']:.3f} on test", content, files)


def read_curves(work_dir: Path, *, steps_per_epoch: float) -> dict[str, Any]:
    """Losses and validation AP over the epochs, from mmengine's logs; of a step that a resumed run repeats, the later.

    Returns:
        `loss` (the detection losses, so that students with and without a teacher can be compared) and `val_ap` as
        lists of [epoch, value]; `step_s`, the median time of a step.
    """
    losses: dict[int, float] = {}
    aps: dict[int, float] = {}
    times = []
    for path in sorted(work_dir.glob("*/vis_data/scalars.json")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "loss" in record:
                losses[record["step"]] = sum(record[name] for name in DETECTION_LOSSES)
                times.append(record["time"])
            elif "coco/bbox_mAP" in record:
                aps[record["step"]] = record["coco/bbox_mAP"]
    return {
        "loss": [[step / steps_per_epoch, loss] for step, loss in sorted(losses.items())],
        "val_ap": [[epoch, ap] for epoch, ap in sorted(aps.items())],
        "step_s": statistics.median(times) if times else None,
    }
