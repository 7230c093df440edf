"""Batch normalisation, folded into the convolution before it, as every exporter does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ld_deploy.quantization.structure import find_structure

if TYPE_CHECKING:
    from torch import Tensor

# By the convolution: the batch normalisation that is folded into it, and that one's epsilon.
Folded = dict[str, tuple[str, float]]


@torch.no_grad()
def fold_batch_norm(model: Any) -> Folded:
    """Folds every batch normalisation that reads a convolution alone: the convolution gets a bias, the other is gone.

    Args:
        model: an mmdet detector, changed in place.

    Returns:
        What was folded, for checkpoints of the model before; see `fold_state`.
    """
    modules = dict(model.named_modules())
    folded: Folded = {}
    for conv_name, norm_name in find_structure(model).normalised.items():
        conv, norm = modules[conv_name], modules[norm_name]
        state = {
            **{f"{conv_name}.{key}": value for key, value in conv.state_dict().items()},
            **{f"{norm_name}.{key}": value for key, value in norm.state_dict().items()},
        }
        folded[conv_name] = (norm_name, norm.eps)
        fold_state(state, {conv_name: folded[conv_name]})
        trained = conv.weight.requires_grad
        conv.weight.copy_(state[f"{conv_name}.weight"])
        conv.bias = nn.Parameter(state[f"{conv_name}.bias"].clone(), requires_grad=trained)
        parent, _, child = norm_name.rpartition(".")
        modules[parent].add_module(child, nn.Identity())
    return folded


def fold_state(state: dict[str, Tensor], folded: Folded, *, prefix: str = "") -> None:
    """Folds the batch normalisations of a checkpoint, in place; one that is folded already stays as it is.

    Args:
        state: a state dict.
        folded: of the model that is to load it.
        prefix: of its names in `state`.
    """
    for conv, (norm, epsilon) in folded.items():
        mean = state.get(f"{prefix}{norm}.running_mean")
        if mean is None:
            continue
        gamma, beta = state[f"{prefix}{norm}.weight"], state[f"{prefix}{norm}.bias"]
        factor = gamma / torch.sqrt(state[f"{prefix}{norm}.running_var"] + epsilon)
        weight, bias = f"{prefix}{conv}.weight", f"{prefix}{conv}.bias"
        state[weight] = state[weight] * factor.reshape(-1, 1, 1, 1)
        state[bias] = beta + (state.get(bias, torch.zeros_like(mean)) - mean) * factor
        for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state.pop(f"{prefix}{norm}.{key}", None)
