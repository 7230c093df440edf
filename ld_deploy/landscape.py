"""AP over the line between two models' neck features, read by the head of each.

The neck features of A and B are mixed, x = (1 - mix) x_A + mix x_B, and each head predicts from every mix. How far AP
falls on the way says how differently two models see.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from mmdet.models.detectors import SingleStageDetector
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from ld_deploy.ap import ap_of
from ld_deploy.checkpoint import load_model
from ld_deploy.config import load_config, student_only
from ld_deploy.distill.teacher import describe_input
from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mmengine.config import Config

# What each metric calls ap, ap50 and ap75.
AP_METRICS = ("CocoMetric", "VOCRangeMetric", "DOTAMetric")
PROBE_SIDE = 256  # pixels: of the empty image that shows the neck's levels
LABELLING_STEPS = ("LoadAnnotations", "PackDetInputs")  # of a pipeline: they leave the pixels alone


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Args:
        config: path, `mmdet::` name or config.
        checkpoint: path or URL of its weights.
    """

    config: str | Path | Config
    checkpoint: str | Path


@dataclass(frozen=True)
class Curve:
    """AP of one head for each mix, 0 to 1.

    Args:
        head: whose: `a` or `b`.
        ap: mean over IoU 0.5 to 0.95.
        ap50: at IoU 0.5.
        ap75: at IoU 0.75.
    """

    head: str
    ap: tuple[float, ...]
    ap50: tuple[float, ...]
    ap75: tuple[float, ...]


@torch.no_grad()
def landscape(
    a: Side,
    *,
    b: Side,
    mixes: Sequence[float],
    split: str = "test",
    overrides: Mapping[str, Any] | None = None,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[Curve, Curve]:
    """AP of both heads on mixed features, on the GPU where there is one.

    Every image is read once and goes once through each backbone. At mix 0 the curve of A's head is what `evaluate`
    gives for A; at mix 1 the curve of B's head is what it gives for B, where both configs name the same data.

    Args:
        a: its config's data and evaluator are used.
        b: the other one.
        mixes: 0 is A's features, 1 is B's; values outside extrapolate.
        split: `test` or `val`.
        overrides: dotted keys of both configs and their values.
        progress: told what is counted, how much is done, and of how much.

    Returns:
        The curves of A's head and of B's.

    Raises:
        ConfigError: The two cannot be mixed, or the config has no such split or no evaluator that gives AP.
        CheckpointError: Weights cannot be read or are not of their config.
    """
    configs = [student_only(load_config(side.config)) for side in (a, b)]
    for config in configs:
        config.merge_from_dict(copy.deepcopy(dict(overrides or {})))  # merging takes `_delete_` out of it
        if split not in ("test", "val") or f"{split}_dataloader" not in config:
            raise ConfigError(f"split must be test or val and both configs must have its dataloader, got {split!r}")
    pairs = zip(configs, (a, b), strict=True)
    models = [load_model(config, side.checkpoint, device=get_device()) for config, side in pairs]
    metric = ap_metric(configs[0][f"{split}_evaluator"])
    check_pair(*(describe(model, config, split=split) for model, config in zip(models, configs, strict=True)))

    loader = Runner.build_dataloader(configs[0][f"{split}_dataloader"])
    metric.dataset_meta = loader.dataset.metainfo
    evaluators = [[collector(metric) for _ in mixes] for _ in models]
    for done, batch in enumerate(loader, start=1):
        data = models[0].data_preprocessor(batch, training=False)
        levels = list(zip(*(model.extract_feat(data["inputs"]) for model in models), strict=True))
        for point, mix in enumerate(mixes):
            features = tuple(torch.lerp(one, other, mix) for one, other in levels)
            for model, row in zip(models, evaluators, strict=True):
                found = model.bbox_head.predict(features, data["data_samples"], rescale=True)
                row[point].process(model.add_pred_to_datasample(data["data_samples"], found), batch)
        progress("batches of images", done, len(loader))

    points: list[tuple[float, ...]] = []
    for evaluator in (each for row in evaluators for each in row):
        points.append(tuple(ap_of(evaluator.evaluate(len(loader.dataset))).values()))
        progress("evaluations", len(points), 2 * len(mixes))
    halves = points[: len(mixes)], points[len(mixes) :]
    of_a, of_b = (Curve(head, *zip(*half, strict=True)) for head, half in zip("ab", halves, strict=True))
    return of_a, of_b


def ap_metric(evaluator: Any) -> Any:
    """The metric of a config's evaluator that gives AP.

    Raises:
        ConfigError: There is none, or it only writes results.
    """
    metrics = Evaluator(evaluator).metrics
    for metric in metrics:
        if type(metric).__name__ in AP_METRICS and not getattr(metric, "format_only", False):
            return metric
    names = ", ".join(type(metric).__name__ for metric in metrics)
    raise ConfigError(f"the evaluator must be one of {', '.join(AP_METRICS)} that evaluates, the config's is {names}")


def collector(metric: Any) -> Evaluator:
    """An evaluator with results of its own, which shares the ground truth that the metric has read."""
    own = copy.copy(metric)
    own.results = []
    return Evaluator([own])


def describe(model: Any, config: Config, *, split: str) -> dict[str, Any]:
    """In what two models must agree to be mixed: the images that they see, their necks and their classes.

    Raises:
        ConfigError: It has more or less than a neck with one dense head on it.
    """
    if not isinstance(model, SingleStageDetector):
        raise ConfigError(f"only a detector with one dense head on its neck can be mixed, got {type(model).__name__}")
    pre = model.data_preprocessor
    neck = model.extract_feat(torch.zeros(1, 3, PROBE_SIDE, PROBE_SIDE, device=pre.device))
    return {
        **describe_input(model),
        "padding": (type(pre).__name__, pre.pad_size_divisor, pre.pad_value, getattr(pre, "input_hw", None)),
        f"{split} pipeline": [
            {key: value for key, value in step.items() if value is not None and key != "_scope_"}
            for step in config[f"{split}_dataloader"].dataset.get("pipeline", [])
            if step["type"] not in LABELLING_STEPS
        ],
        "number of levels": len(neck),
        "channels": [level.shape[1] for level in neck],
        "strides": [PROBE_SIDE // level.shape[2] for level in neck],
        "number of classes": model.bbox_head.num_classes,
        "class names": tuple(getattr(model, "dataset_meta", {}).get("classes", ())),
    }


def check_pair(of_a: Mapping[str, Any], of_b: Mapping[str, Any]) -> None:
    """Raises a ConfigError that names the first thing in which B does not fit A; unknown class names fit all."""
    for name, value in of_a.items():
        unknown = name == "class names" and not (value and of_b[name])
        if of_b[name] != value and not unknown:
            message = (
                f"the features of the two models cannot be mixed: B's {name} is {of_b[name]}, A's {value}; "
                "give two configs of the same data, normalisation, padding, neck and classes"
            )
            raise ConfigError(message)
