"""Training and testing by mmengine's runner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner

import ld_deploy.models  # noqa: F401 - registers the components that configs name
from ld_deploy.checkpoint import load_weights, read_checkpoint
from ld_deploy.compat import allow_checkpoint_classes
from ld_deploy.config import is_distilled, load_config, student_only
from ld_deploy.data_check import check_categories, check_dataset
from ld_deploy.explain.hook import add_explanation
from ld_runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

# What mmengine's runner must not find when it only tests.
TRAINING_KEYS = (
    *("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler"),
    *("val_dataloader", "val_cfg", "val_evaluator"),
)


def train(
    config: str | Path | Config,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    amp: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Trains a config to its end.

    Under torchrun every process calls this. The learning rate follows the linear rule where the config enables
    `auto_scale_lr`.

    Args:
        config: path, `mmdet::` name or config.
        work_dir: of checkpoints and logs; default work_dirs/NAME of the config.
        resume: go on from the last checkpoint in work_dir, or start where there is none.
        amp: automatic mixed precision; needs a GPU.
        overrides: dotted keys of the config and their values, such as {'train_cfg.max_epochs': 2}.

    Returns:
        work_dir/best.pth, chosen by the validation metric, or last.pth where the training did not validate.

    Raises:
        ConfigError: The config cannot be used as it is.
        DataError: The training set cannot be used.
        CheckpointError: The teacher's or the initial weights cannot be used.
    """
    runner = build_runner(config, work_dir=work_dir, resume=resume, amp=amp, overrides=overrides)
    runner.train()
    return name_checkpoints(Path(runner.work_dir))


def name_checkpoints(work_dir: Path) -> Path:
    """Gives the last and the best checkpoint the names `last.pth` and `best.pth`, so that configs can name them.

    Returns:
        `best.pth`, by the validation metric, or `last.pth` where the training did not validate.
    """
    last = Path((work_dir / "last_checkpoint").read_text(encoding="utf-8").strip())
    found = {"last.pth": last.name}
    best = sorted(work_dir.glob("best_*.pth"), key=lambda path: path.stat().st_mtime)
    if best:
        found["best.pth"] = best[-1].name
    if is_main_process():
        for name, target in found.items():
            (work_dir / name).unlink(missing_ok=True)
            (work_dir / name).symlink_to(target)
    return work_dir / ("best.pth" if "best.pth" in found else "last.pth")


def build_runner(
    config: str | Path | Config,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    amp: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> Runner:
    """The runner of a training, with its data looked at: see `train`."""
    source = load_config(config)
    config = Config(source.to_dict(), filename=source.filename)
    config.merge_from_dict(dict(overrides or {}))
    config.work_dir = str(work_dir or Path("work_dirs", Path(config.filename or "config").stem))
    config.resume = resume
    # By a fixed name, a second run in this process would write its curves into the first one's folder.
    config.get("visualizer", {}).pop("name", None)
    if "RANK" in os.environ:  # torchrun
        config.launcher = "pytorch"
        if not torch.cuda.is_available():
            prepare_cpu_processes(config)
    if amp:
        if not torch.cuda.is_available():
            raise ConfigError("--amp needs a GPU, and torch sees none: train without it")
        config.optim_wrapper.type = "AmpOptimWrapper"
        config.optim_wrapper.loss_scale = "dynamic"
    if is_distilled(config):
        add_explanation(config)
    allow_checkpoint_classes()
    runner = Runner.from_cfg(config)
    # Unserialised, so that a set without images gets as far as the check.
    source_set = config.train_dataloader.dataset
    plain = {} if {"dataset", "datasets"} & set(source_set) else {"serialize_data": False}  # not of a wrapper
    dataset = DATASETS.build({**source_set, **plain})
    classes = dataset.metainfo["classes"]
    if len(classes) != config.model.bbox_head.num_classes:
        message = (
            f"the head has {config.model.bbox_head.num_classes} classes, the data set {len(classes)}: "
            "set model.bbox_head.num_classes and metainfo.classes to the same number"
        )
        raise ConfigError(message)
    if type(dataset) is CocoDataset and Path(dataset.ann_file).is_file():  # others number the classes in their own way
        check_categories(Path(dataset.ann_file), classes=classes)
    records = [dataset.get_data_info(index) for index in range(len(dataset))]
    summary = check_dataset(records, classes=classes, name="train")
    if is_distilled(config):
        check_teacher_classes(config.model.teacher["checkpoint"], classes)
    if is_main_process():
        runner.logger.info("training data: %s", summary)
    return runner


def prepare_cpu_processes(config: Config) -> None:
    """Joins the processes of torchrun by gloo; mmengine's own way of doing it, and its wrapper, assume GPUs."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo")
    config.setdefault("model_wrapper_cfg", {"type": "MMDistributedDataParallel", "device_ids": None})


def check_teacher_classes(checkpoint: str | Path, classes: tuple[str, ...]) -> None:
    """Raises a DataError where the teacher's checkpoint names other classes, or another order, than the data set."""
    meta = {key.lower(): value for key, value in read_checkpoint(checkpoint)["meta"].get("dataset_meta", {}).items()}
    known = tuple(meta.get("classes", classes))
    if known != tuple(classes):
        raise DataError(f"the teacher was trained on the classes {known}, this data set has {tuple(classes)}")


def evaluate(
    config: str | Path | Config,
    checkpoint: str | Path,
    *,
    work_dir: str | Path | None = None,
    split: str = "test",
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """AP of a checkpoint by mmdet's own test loop.

    Args:
        config: path, `mmdet::` name or config.
        checkpoint: of its student.
        work_dir: of the log; default work_dirs/NAME of the config.
        split: `test` or `val`.
        overrides: dotted keys of the config and their values.

    Returns:
        The evaluator's metrics, such as `coco/bbox_mAP`.

    Raises:
        ConfigError: The config has no such split.
        CheckpointError: The weights cannot be read or are not of this config.
    """
    loaded = load_config(config)
    filename = loaded.filename
    loaded = student_only(loaded)
    loaded.merge_from_dict(dict(overrides or {}))
    loaded.work_dir = str(work_dir or Path("work_dirs", Path(filename or "config").stem))
    if split not in ("test", "val") or f"{split}_dataloader" not in loaded:
        raise ConfigError(f"split must be test or val and the config must have its dataloader, got {split!r}")
    if split == "val":
        loaded.test_dataloader, loaded.test_evaluator = loaded.val_dataloader, loaded.val_evaluator
    weights = read_checkpoint(checkpoint)
    for key in TRAINING_KEYS:
        loaded.pop(key, None)
    allow_checkpoint_classes()
    runner = Runner.from_cfg(loaded)
    load_weights(runner.model, weights, name=str(checkpoint))
    metrics: dict[str, float] = runner.test()
    return metrics
