"""ATSS assignment for all images of a batch at once: what mmdet's ATSSAssigner decides, without a loop over images.

Source: Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection via Adaptive Training Sample
Selection", arXiv 1912.02424, algorithm 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from ld_deploy.distill.overlaps import Overlaps

CENTRE_MARGIN = 0.01  # px: mmdet's, a centre on the edge of a box is outside


def assign_atss(overlaps: Overlaps) -> Tensor:
    """The ground truth of each prior.

    A candidate is positive where its IoU reaches the ground truth's alpha and its centre lies inside the box; a prior
    that is positive for several takes the one with the highest IoU, the first one on ties.

    Returns:
        int64 (N, L): index into the image's ground truth, -1 for negatives.
    """
    shape = overlaps.iou.shape
    if shape[2] == 0:
        return torch.full(shape[:2], -1, dtype=torch.long, device=overlaps.priors.device)
    flat = overlaps.candidates.flatten(1)[..., None].expand(-1, -1, 2)
    centres = overlaps.prior_centres.gather(1, flat).unflatten(1, overlaps.candidates.shape[1:])  # (N, k, m, 2)
    margin = overlaps.inner_margin(centres)
    chosen = overlaps.candidate_valid & (overlaps.candidate_iou >= overlaps.alpha[:, None]) & (margin > CENTRE_MARGIN)
    positive = torch.zeros(shape, dtype=torch.bool, device=chosen.device).scatter_(1, overlaps.candidates, chosen)
    best, index = overlaps.iou.masked_fill(~positive, -1).max(dim=2)
    return index.masked_fill(best < 0, -1)
