"""Reading a checkpoint into a model, and publishing the weights of a student alone."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from mmengine.runner import CheckpointLoader

from ld_deploy.compat import allow_checkpoint_classes
from ld_deploy.config import load_config, student_only
from ld_runtime.errors import CheckpointError
from ld_runtime.files import written_whole
from ld_runtime.nearest import nearest_path

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import nn

TRAINING_ONLY = "distillation."  # adapters that only a distilled training has


def read_checkpoint(source: str | Path) -> dict[str, Any]:
    """Reads a checkpoint to the CPU without running code from it.

    Args:
        source: a path or an http(s) URL.

    Returns:
        The checkpoint; `state_dict` and `meta` are there.

    Raises:
        CheckpointError: Missing, truncated, not a checkpoint, or one that only arbitrary code could load.
    """
    allow_checkpoint_classes()
    name = str(source)
    if "://" not in name and not Path(name).is_file():
        guess = nearest_path(name) or ":"
        raise CheckpointError(f"there is no checkpoint {name}{guess} train one with `ld-deploy train CONFIG`")
    try:
        loaded = CheckpointLoader.load_checkpoint(name, map_location="cpu")
    except pickle.UnpicklingError as error:
        message = (
            f"the checkpoint {name} is damaged, or holds more than weights: {str(error).splitlines()[0]}; "
            "train it again, or fetch it again if it was downloaded"
        )
        raise CheckpointError(message) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {name} cannot be read ({error}): it may be truncated") from error
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{name} holds a {type(loaded).__name__}, not a checkpoint")
    return {"meta": {}, **(loaded if "state_dict" in loaded else {"state_dict": loaded})}


def load_weights(model: nn.Module, checkpoint: dict[str, Any], *, name: str) -> None:
    """Loads weights strictly; the parts that only distillation needs are left out.

    Raises:
        CheckpointError: A key is missing or unknown, or a shape differs; the first few are named.
    """
    named = {key.removeprefix("module."): value for key, value in checkpoint["state_dict"].items()}
    state = {key: value for key, value in named.items() if not key.startswith(TRAINING_ONLY)}
    adopt: Any = getattr(model, "adopt_scales", None)
    if adopt is not None:  # of a quantized detector: which layers are quantized, the checkpoint says
        adopt(state)
    classes = class_count(checkpoint.get("meta", {}))
    for prefix, module in model.named_modules():
        # A head that knows an older layout of its weights; not where the checkpoint says that it has other classes.
        if hasattr(module, "adapt_state_dict") and classes in (None, module.num_classes):
            module.adapt_state_dict(state, prefix=f"{prefix}.")
    wanted = model.state_dict()
    problems = [f"missing {key}" for key in wanted if key not in state]
    problems += [f"unknown {key}" for key in state if key not in wanted]
    problems += [
        f"{key} is {tuple(state[key].shape)}, the model's {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(f"the checkpoint {name} is not of this config: {'; '.join(problems[:3])}{more}")
    model.load_state_dict(state)


def class_count(meta: dict[str, Any]) -> int | None:
    """Number of classes that a checkpoint of mmdet 3 or 2 says it has, None where it says nothing."""
    known = {key.lower(): value for key, value in {**meta, **meta.get("dataset_meta", {})}.items()}
    return len(known["classes"]) if "classes" in known else None


def load_model(config: str | Path | Config, checkpoint: str | Path | None, *, device: str = "cpu") -> Any:
    """Builds the detector of a config, without teacher, in eval mode.

    Args:
        config: path, `mmdet::` name or config.
        checkpoint: path or URL of its weights; None leaves them random.
        device: torch's name.

    Returns:
        An mmdet detector; `dataset_meta` is the checkpoint's where it has one.

    Raises:
        ConfigError: The config cannot be read.
        CheckpointError: The weights cannot be read, or are not of this config.
    """
    import ld_deploy.models  # noqa: F401 - registers the components that configs name; imports this module itself

    config = student_only(load_config(config))
    init_default_scope(config.get("default_scope", "mmdet"))
    without_pretrained(config.model)
    model: Any = MODELS.build(config.model)
    if checkpoint is not None:
        loaded = read_checkpoint(checkpoint)
        load_weights(model, loaded, name=str(checkpoint))
        model.dataset_meta = {
            key.lower(): value for key, value in loaded.get("meta", {}).get("dataset_meta", {}).items()
        }
    return model.to(device).eval()


def random_model(config: str | Path | Config, *, device: str = "cpu") -> Any:
    """The detector of a config with random weights, the same in every call: see `load_model`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load_model(config, None, device=device)


def without_pretrained(config: dict[str, Any]) -> None:
    """Drops every `init_cfg` of type Pretrained, in place: the weights come from the checkpoint."""
    for key, value in list(config.items()):
        if key == "init_cfg" and isinstance(value, dict) and value.get("type") == "Pretrained":
            config[key] = None
        elif isinstance(value, dict):
            without_pretrained(value)


def publish(config: str | Path | Config, checkpoint: str | Path, *, output_dir: str | Path) -> Path:
    """Writes the student's weights alone: no teacher, optimiser or training state, safe to load.

    Args:
        config: of the student.
        checkpoint: as training wrote it.
        output_dir: created where it is not there.

    Returns:
        The file, named NAME-HASH.pth with the first 8 hex digits of the sha256 of its content.

    Raises:
        CheckpointError: As `load_model`.
    """
    config = student_only(load_config(config))
    model = load_model(config, checkpoint)
    meta = {"cfg": config.pretty_text, "dataset_meta": dict(getattr(model, "dataset_meta", {}))}
    content = io.BytesIO()
    torch.save({"state_dict": model.state_dict(), "meta": meta}, content)
    digest = hashlib.sha256(content.getvalue()).hexdigest()[:8]
    target = Path(output_dir, f"{Path(checkpoint).stem}-{digest}.pth")
    with written_whole(target) as temporary:
        temporary.write_bytes(content.getvalue())
    return target
