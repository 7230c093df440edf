"""Detectors that train, and are evaluated, as their quantized files compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import MODELS

from ld_deploy.distill.detector import DistilledDetector
from ld_deploy.quantization.arithmetic import KINDS, Kind
from ld_deploy.quantization.folding import fold_batch_norm, fold_state
from ld_deploy.quantization.layers import LayerScales, quantize_layers, restore_layers
from ld_runtime.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor


class Quantized:
    """Folds and quantizes a detector after it is built; in front of its class among the bases.

    Args:
        quantization: dict(kind='int8', scales=FILE), the JSON report that `ld-deploy quantize` wrote beside the
            quantized file of the float student. It names the quantized layers and the scales of their inputs and
            outputs, with which the training starts and ends; weights have their scales from themselves. Without
            `scales` the layers are those of the checkpoint that is loaded.
        kwargs: of the detector.

    Batch normalisation is folded, so the model's names are those of a folded one; a float checkpoint (`load_from`) is
    folded when it is loaded.

    Raises:
        ConfigError: The report cannot be used, or is of another network or encoding.
    """

    def __init__(self, *, quantization: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        unknown = set(quantization) - {"kind", "scales"}
        kind = quantization.get("kind", "int8")
        if unknown or kind not in KINDS:
            message = f"quantization must be dict(kind='int8' or 'fp8', scales=REPORT.json), got {dict(quantization)}"
            raise ConfigError(message)
        self.kind: Kind = kind
        self.folded = fold_batch_norm(self)
        self.register_load_state_dict_pre_hook(_fold_when_loaded)  # type: ignore[attr-defined]
        if quantization.get("scales"):
            quantize_layers(self, read_scales(quantization["scales"], kind=kind), kind=kind)

    def adopt_scales(self, state: dict[str, Tensor]) -> None:
        """Quantizes the layers that a checkpoint has scales of, and no others.

        Args:
            state: of a checkpoint of this training.

        Raises:
            CheckpointError: It has no scales.
            ConfigError: They are of another network.
        """
        ending = ".input_scale"
        names = [key.removesuffix(ending) for key in state if key.endswith(ending)]
        if not names:
            message = "the checkpoint has no scales: it is of a float training"
            raise CheckpointError(f"{message}; load it with the config that it was trained with, or train this one")
        restore_layers(self)
        quantize_layers(self, {name: LayerScales.of_state(state, name) for name in names}, kind=self.kind)


def read_scales(report: str | Path, *, kind: Kind) -> dict[str, LayerScales]:
    """The scales of a report of `ld-deploy quantize`, by layer.

    Raises:
        ConfigError: There is none, it cannot be read, or it is of another encoding.
    """
    path = Path(report)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {name: LayerScales(**one) for name, one in content["modules"].items()}
        precision = content["precision"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{path} is no report with scales ({type(error).__name__}: {error})"
        raise ConfigError(f"{message}: write one with `ld-deploy quantize student.onnx --config CONFIG`") from error
    if precision != kind:
        raise ConfigError(f"{path} has scales for {precision}, the config asks for {kind}")
    return found


def _fold_when_loaded(module: Any, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    fold_state(state, module.folded, prefix=prefix)


@MODELS.register_module()
class QuantizedDetector(Quantized, SingleStageDetector):
    """A single-stage detector in quantization-aware training."""


@MODELS.register_module()
class QuantizedDistilledDetector(Quantized, DistilledDetector):
    """A distilled detector in quantization-aware training: the teacher, which stays float, wins back what is lost."""
