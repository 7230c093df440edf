"""Config and checkpoint -> model and card -> file: what `ld-deploy export` does, for Python."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ld_deploy import compat
from ld_runtime.errors import CheckpointError
from ld_runtime.nearest import nearest_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmengine.config import Config

    from ld_runtime.model_card import ModelCard, NmsKind

TOOLS = ("ld-deploy", "torch", "mmdet", "mmengine", "onnx", "onnxscript", "onnxslim")


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content.

    Raises:
        CheckpointError: There is no such file.
    """
    if not path.is_file():
        guess = nearest_path(path) or ":"
        raise CheckpointError(f"there is no checkpoint {path}{guess} train one with `ld-deploy train CONFIG`")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def export_checkpoint(
    config: str | Path | Config,
    *,
    checkpoint: Path | None,
    output: Path,
    input_hw: tuple[int, int] | None = None,
    score_threshold: float | None = None,
    max_detections: int | None = None,
    nms_kind: NmsKind | None = None,
    raw: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> ModelCard:
    """Writes the deployed file of a checkpoint; see `ld_export.onnx_export.export_onnx`.

    Args:
        config: path, `mmdet::` name or config of the student; a distilled student's teacher is left out.
        checkpoint: file of its weights; None leaves them random: such a file takes the time of a trained one, and
            what it detects means nothing.
        output: the `.onnx` file.
        input_hw: fixed height and width in pixels; None: dynamic, where the config is.
        score_threshold: instead of the config's.
        max_detections: instead of the config's.
        nms_kind: `none` gives the candidates; None: the NMS of the head's boxes.
        raw: the head's maps; implies no NMS.
        progress: gets one line before each step.

    Returns:
        The model card of the file.

    Raises:
        ConfigError: The config cannot be read or deployed.
        CheckpointError: The weights cannot be read, or are not of this config.
        EngineError: torch's exporter refuses the network.
        ParityError: The file does not agree with PyTorch; nothing is written.
    """
    compat.install()
    from ld_deploy.checkpoint import load_model, random_model
    from ld_deploy.config import load_config
    from ld_deploy.quantization.layers import restore_layers
    from ld_export.card import card_from_config
    from ld_export.onnx_export import export_onnx
    from ld_export.quantize_modules import ModuleScales

    progress(
        f"read {checkpoint}" if checkpoint else "random weights: the file is for measuring speed, and nothing else"
    )
    digest = file_sha256(Path(checkpoint)) if checkpoint else ""
    source = load_config(config)
    model = load_model(source, checkpoint) if checkpoint else random_model(source)
    quantized = {name: ModuleScales(**asdict(one)) for name, one in restore_layers(model).items()}
    card = card_from_config(
        source,
        weights_sha256=digest,
        input_hw=input_hw,
        score_threshold=score_threshold,
        max_detections=max_detections,
        nms_kind="none" if raw else nms_kind,
        tool_versions={name: version(name) for name in TOOLS},
    )
    if quantized:
        card = replace(card, precision=model.kind)
    export_onnx(model, card=card, output=Path(output), raw=raw, quantized=quantized, progress=progress)
    return card
