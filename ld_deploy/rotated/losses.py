"""Losses of rotated boxes as Gaussians.

Sources: Yang et al., "Rethinking Rotated Object Detection with Gaussian Wasserstein Distance Loss", arXiv 2101.11952;
Yang et al., "Learning High-Precision Bounding Box for Rotated Object Detection via Kullback-Leibler Divergence",
arXiv 2106.01883. A box is a Gaussian around its centre, with half of w and h as its deviations along its sides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import nn

from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Transform = Literal["none", "sqrt", "log1p"]
TRANSFORMS: tuple[Transform, ...] = ("none", "sqrt", "log1p")
MIN_SIDE, MAX_SIDE = 1e-7, 1e7
# Under a root or a logarithm nothing is smaller: the root's gradient at 0 is infinite.
TINY = 1e-7


class _Pair:
    """Two sets of boxes (n, 5), the second seen from the first: everything that the divergences are made of.

    Written with the angle between them rather than with covariance matrices: no determinant is the difference of large
    numbers, and very thin boxes stay finite. Of the second's two writings the one nearest in angle is taken.
    """

    def __init__(self, first: Tensor, second: Tensor) -> None:
        p, q = (first[:, 2:4].clamp(min=MIN_SIDE, max=MAX_SIDE) / 2).unbind(dim=-1)
        r, s = (second[:, 2:4].clamp(min=MIN_SIDE, max=MAX_SIDE) / 2).unbind(dim=-1)
        shift = second[:, :2] - first[:, :2]
        cos, sin = first[:, 4].cos(), first[:, 4].sin()
        self.x, self.y = cos * shift[:, 0] + sin * shift[:, 1], cos * shift[:, 1] - sin * shift[:, 0]
        turn = second[:, 4] - first[:, 4]
        squares = turn.sin().square(), turn.cos().square()
        turned = squares[0] > squares[1]
        self.sin2, self.cos2 = (torch.where(turned, squares[1 - i], squares[i]) for i in range(2))
        self.p, self.q, self.r, self.s = p, q, torch.where(turned, s, r), torch.where(turned, r, s)


def squared_wasserstein(pred: Tensor, target: Tensor, *, alpha: float = 1.0) -> Tensor:
    """|m1 - m2|^2 + alpha^2 tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), in square pixels.

    Args:
        pred: (n, 5).
        target: (n, 5).
        alpha: weight of shape against place.

    Returns:
        (n,), at least 0.
    """
    pair = _Pair(pred, target)
    p, q, r, s = pair.p, pair.q, pair.r, pair.s
    same = p * r + q * s
    # tr((S1^1/2 S2 S1^1/2)^1/2): `same` where the axes are the same.
    root = (same.square() * pair.cos2 + (p * s + q * r).square() * pair.sin2).clamp(min=TINY**2).sqrt()
    turned = 2 * pair.sin2 * (p - q) * (r - s) * (p + q) * (r + s) / (same + root)
    shape = (p - r).square() + (q - s).square() + turned
    return (pred[:, :2] - target[:, :2]).square().sum(dim=-1) + alpha**2 * shape.clamp(min=0)


def kullback_leibler(first: Tensor, second: Tensor, *, alpha: float = 1.0) -> Tensor:
    """The divergence KL(second || first): that of the second's Gaussian under the first's.

    Args:
        first: (n, 5), whose covariance is inverted.
        second: (n, 5).
        alpha: weight of shape against place: the place's part is divided by its square.

    Returns:
        (n,), at least 0 but for rounding.
    """
    pair = _Pair(first, second)
    p, q, r, s = pair.p, pair.q, pair.r, pair.s
    place = (pair.x / p).square() + (pair.y / q).square()
    across = ((r / q).square() + (s / p).square()) * pair.sin2
    along = ((r / p).square() + (s / q).square()) * pair.cos2
    logarithm = (p / r).log() + (q / s).log()
    return 0.5 * place / alpha**2 + 0.5 * (across + along) + logarithm - 1


def _wasserstein(pred: Tensor, target: Tensor, *, alpha: float, normalize: bool) -> Tensor:
    distance = squared_wasserstein(pred, target, alpha=alpha).clamp(min=TINY).sqrt()
    if not normalize:
        return distance
    areas = pred[:, 2:4].clamp(MIN_SIDE, MAX_SIDE).prod(dim=-1) * target[:, 2:4].clamp(MIN_SIDE, MAX_SIDE).prod(dim=-1)
    determinants = (areas / 16).clamp(min=TINY)  # the root of both covariances' determinants
    return distance / (2 * determinants.sqrt().sqrt())


def _divergence(combine: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    def distance(pred: Tensor, target: Tensor, *, alpha: float, normalize: bool) -> Tensor:
        pair = kullback_leibler(pred, target, alpha=alpha), kullback_leibler(target, pred, alpha=alpha)
        value = combine(*pair)
        return value.clamp(min=TINY).sqrt() if normalize else value.clamp(min=TINY)

    return distance


# Names as published.
DISTANCES: dict[str, Callable[..., Tensor]] = {
    "gwd": _wasserstein,
    "kld": _divergence(lambda from_pred, _: from_pred),
    "jd": _divergence(lambda from_pred, from_target: (from_pred + from_target) / 2),
    "kld_symmax": _divergence(torch.maximum),
    "kld_symmin": _divergence(torch.minimum),
}


def _shaped(distance: Tensor, *, transform: Transform, tau: float) -> Tensor:
    """The distance's transform f, or 1 - 1 / (tau + f) where tau is at least 1."""
    if transform == "log1p":
        distance = distance.log1p()
    elif transform == "sqrt":
        distance = distance.clamp(min=TINY).sqrt()
    return 1 - 1 / (tau + distance) if tau >= 1 else distance


class _GaussianLoss(nn.Module):
    """What both losses take from their settings."""

    def __init__(self, *, transform: Transform, tau: float, reduction: str, loss_weight: float) -> None:
        super().__init__()
        if transform not in TRANSFORMS:
            raise ConfigError(f"transform must be one of {', '.join(TRANSFORMS)}, got {transform!r}")
        self.transform: Transform = transform
        self.tau = tau
        self.reduction = reduction
        self.loss_weight = loss_weight

    def _reduced(
        self, values: Tensor, weight: Tensor | None, avg_factor: float | Tensor | None, reduction: str | None
    ) -> Tensor:
        """Values (n,) by weights (n,), as mmdet's losses reduce them."""
        reduction = reduction or self.reduction
        if not len(values) and reduction == "mean" and avg_factor is None:
            return values.sum()  # the mean of nothing is not a number
        reduced: Tensor = weight_reduce_loss(values, weight, reduction, avg_factor)
        return self.loss_weight * reduced


@MODELS.register_module()
class GaussianBoxLoss(_GaussianLoss):
    """Distance of predicted and target boxes as Gaussians: what the published `GDLoss` computes.

    The published GWD recipe is `distance='gwd', tau=0, loss_weight=5`; `kld` inverts the covariance of the prediction.

    Args:
        distance: 'gwd', 'kld', 'jd', 'kld_symmax' or 'kld_symmin'.
        transform: f of the distance: 'log1p', 'sqrt' or 'none'.
        tau: at least 1, the loss is 1 - 1 / (tau + f), below 1; smaller, it is f.
        alpha: weight of shape against place.
        normalize: divide GWD by the boxes' size; take the root of a divergence.
        reduction: 'mean', 'sum' or 'none'.
        loss_weight: of the loss.

    Raises:
        ConfigError: There is no such distance or transform.
    """

    def __init__(
        self,
        *,
        distance: str = "gwd",
        transform: Transform = "log1p",
        tau: float = 1.0,
        alpha: float = 1.0,
        normalize: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(transform=transform, tau=tau, reduction=reduction, loss_weight=loss_weight)
        if distance not in DISTANCES:
            raise ConfigError(f"distance must be one of {', '.join(DISTANCES)}, got {distance!r}")
        self.distance = distance
        self.alpha = alpha
        self.normalize = normalize

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """The loss, in float32 whatever the precision of the step.

        Args:
            pred: (n, 5), cx cy w h angle.
            target: (n, 5).
            weight: (n,), or (n, k), of which the mean over k is taken.
            avg_factor: what the weighted sum is divided by, in place of n.
            reduction_override: in place of the setting.
        """
        with torch.autocast(pred.device.type, enabled=False):
            distance = DISTANCES[self.distance](
                pred.float(), target.float(), alpha=self.alpha, normalize=self.normalize
            )
            values = _shaped(distance, transform=self.transform, tau=self.tau)
            if weight is not None and weight.dim() > 1:
                weight = weight.mean(dim=-1)
            return self._reduced(values, weight, avg_factor, reduction_override)


@MODELS.register_module()
class TargetKLDLoss(_GaussianLoss):
    """Twice the divergence of the prediction under the target's Gaussian: the published `GDLoss_v1` with KLD.

    Args:
        transform: 'log1p' or 'sqrt'.
        tau: the loss is 1 - 1 / (tau + f).
        reduction: 'mean', 'sum' or 'none'.
        loss_weight: of the loss.
        published: return one value for each box of positive weight, (p, 1), whatever weights, `avg_factor` and
            reduction are, as the published code does; what sums them then decides the scale. Otherwise they count.

    Raises:
        ConfigError: There is no such transform, or tau is below 1.
    """

    def __init__(
        self,
        *,
        transform: Transform = "log1p",
        tau: float = 1.0,
        reduction: str = "mean",
        loss_weight: float = 1.0,
        published: bool = False,
    ) -> None:
        if tau < 1:
            raise ConfigError(f"tau of TargetKLDLoss must be at least 1, got {tau}")
        super().__init__(transform=transform, tau=tau, reduction=reduction, loss_weight=loss_weight)
        self.published = published

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | Tensor | None = None,
        reduction_override: str | None = None,
    ) -> Tensor:
        """See `GaussianBoxLoss.forward`."""
        with torch.autocast(pred.device.type, enabled=False):
            if weight is not None and weight.dim() > 1:
                weight = weight.mean(dim=-1)
            if self.published and weight is not None:
                counts = weight > 0
                if not counts.any():
                    return (pred * 0).sum()
                pred, target = pred[counts], target[counts]
            distance = (2 * kullback_leibler(target.float(), pred.float())).clamp(min=1e-6)
            values = _shaped(distance, transform=self.transform, tau=self.tau)
            if self.published:
                return self.loss_weight * values[:, None]
            return self._reduced(values, weight, avg_factor, reduction_override)
