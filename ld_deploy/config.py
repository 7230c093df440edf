"""Finding and reading mmengine configs."""

from __future__ import annotations

from pathlib import Path

from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.utils import get_installed_path

from ld_runtime.errors import ConfigError
from ld_runtime.nearest import nearest, nearest_path

DISTILLED = "DistilledDetector"
QUANTIZED, QUANTIZED_DISTILLED = "QuantizedDetector", "QuantizedDistilledDetector"
# What is left of a distilled detector without its teacher.
_ALONE = {DISTILLED: "SingleStageDetector", QUANTIZED_DISTILLED: QUANTIZED}
DISTILLATION_KEYS = ("teacher", "distill", "recipe", "cross")


def load_config(source: str | Path | Config) -> Config:
    """Reads a config.

    Args:
        source: a path, the name of an installed one such as `mmdet::gfl/gfl_r50_fpn_1x_coco.py`, or a config.

    Returns:
        The config; `custom_imports` has registered this package's components.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
    """
    if isinstance(source, Config):
        return source
    name = str(source)
    if "::" not in name and not Path(name).is_file():
        guess = nearest_path(name, tree="configs") or ":"
        way_out = "give a path such as configs/demo/student.py, or mmdet::NAME"
        raise ConfigError(f"there is no config {name}{guess} {way_out}")
    try:
        return get_config(name) if "::" in name else Config.fromfile(name)
    except (SyntaxError, KeyError, AttributeError, TypeError, OSError, ValueError) as error:
        guess = _nearest_installed(name) if "::" in name and isinstance(error, FileNotFoundError) else ""
        raise ConfigError(f"the config {name} cannot be read: {type(error).__name__}: {error}{guess}") from error


def _nearest_installed(name: str) -> str:
    """Of the configs that came with a package."""
    package, _, path = name.partition("::")
    root = Path(get_installed_path(package), ".mim", "configs")
    return nearest(path, (each.relative_to(root).as_posix() for each in root.rglob("*.py")))


def student_only(config: Config) -> Config:
    """A copy without teacher and distillation: what is evaluated, exported and published."""
    config = Config(config.to_dict())
    if is_distilled(config):
        config.model.type = _ALONE[config.model.type]
        for key in DISTILLATION_KEYS:
            config.model.pop(key, None)
    if config.model.type == QUANTIZED:
        config.model.quantization.pop("scales", None)  # the checkpoint has them
    return config


def is_distilled(config: Config) -> bool:
    """Whether a config's detector has a teacher."""
    return config.model.type in _ALONE
