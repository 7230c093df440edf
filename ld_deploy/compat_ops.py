"""The mmcv operators that dense detectors call, for CPU and CUDA.

NMS, convolutions and RoIAlign run on torchvision's kernels, soft-NMS in numpy, the focal loss in torch.

Names, argument order, keyword names and in-place outputs are those of the extension that mmcv 2.1's Python files call
(`mmcv/ops/*.py`), so they are not ours to choose: tensors are positional, outputs are passed in and filled, settings
are keywords. The functions here replace `mmcv._ext` only where there is no compiled one; see `ld_deploy.compat`.

The kernels of torchvision want float32 or float64. Float16 and bfloat16 are computed in float32 and rounded at the
end, which is also what torchvision does under autocast.
"""

# ruff: noqa: PLR0917 - mmcv passes every tensor by position

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torchvision

from ld_runtime.errors import BackendMissingError

if TYPE_CHECKING:
    from torch import Tensor

# Keyword names of mmcv's two deformable convolutions, in the order of torchvision's arguments.
DEFORM_SETTINGS = ("dH", "dW", "padH", "padW", "dilationH", "dilationW", "group", "deformable_group")
MODULATED_SETTINGS = (
    *("stride_h", "stride_w", "pad_h", "pad_w", "dilation_h", "dilation_w"),
    *("group", "deformable_group"),
)


def _kernel(name: str) -> Any:
    """One compiled operator of torchvision.

    Raises:
        BackendMissingError: This torchvision is too old to have it, or has no compiled operators.
    """
    try:
        return getattr(torch.ops.torchvision, name)
    except AttributeError as error:
        message = (
            f"torchvision {torchvision.__version__} has no compiled operator {name!r}: "
            f"pip install --upgrade torchvision, in the release that belongs to torch {torch.__version__}"
        )
        raise BackendMissingError(message) from error


def _full(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def nms(boxes: Tensor, scores: Tensor, *, iou_threshold: float, offset: int) -> Tensor:
    """Greedy NMS: a box falls to a kept better one with IoU > `iou_threshold`.

    Args:
        boxes: (n, 4), x1 y1 x2 y2 in pixels.
        scores: (n,). Lower index first on ties.
        iou_threshold: strict; rounded to float32 as in mmcv, so that an IoU of exactly 0.6 survives 0.6.
        offset: 0, or 1 for mmdet 1.x boxes, whose width is x2 - x1 + 1.

    Returns:
        int64 (m,), indices of the kept boxes, scores descending.
    """
    boxes = _full(boxes)
    if offset:  # the width of every box and of every intersection grows by the same pixel
        boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
    kept: Tensor = _kernel("nms")(boxes, _full(scores), float(np.float32(iou_threshold)))
    return kept


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    *,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS, after Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", arXiv 1704.04503.

    The best of the rest is taken out, the others decay by their IoU with it, and those below `min_score` are dropped.
    Boxes change places exactly as in mmcv (swap with the best, fill a gap from the end), so ties fall the same way.

    Args:
        boxes: (n, 4) on the CPU, x1 y1 x2 y2 in pixels.
        scores: (n,) on the CPU.
        dets: (n, 5), filled in place: the first m rows are x1 y1 x2 y2 and the decayed score.
        iou_threshold: methods 0 and 1 decay from IoU >= this on.
        sigma: width of the Gaussian of method 2.
        min_score: a decayed score below this drops the box. Not asked of the very first one.
        method: 0 sets the score to zero, 1 multiplies it by 1 - IoU, 2 by exp(-IoU^2 / sigma).
        offset: 0, or 1 for boxes whose width is x2 - x1 + 1.

    Returns:
        int64 (m,), indices into `boxes` in the order of `dets`.
    """
    box = _full(boxes).detach().numpy()
    number = box.dtype.type
    left = _full(scores).detach().numpy().astype(box.dtype)  # a copy: it decays
    x1, y1, x2, y2 = box.T
    area = (x2 - x1 + number(offset)) * (y2 - y1 + number(offset))
    order = np.arange(len(box))
    i = 0
    while i < len(order):
        best_at = i + int(np.argmax(left[order[i:]]))
        order[[i, best_at]] = order[[best_at, i]]
        best, rest = order[i], order[i + 1 :]
        width = np.minimum(x2[best], x2[rest]) - np.maximum(x1[best], x1[rest]) + number(offset)
        height = np.minimum(y2[best], y2[rest]) - np.maximum(y1[best], y1[rest]) + number(offset)
        inner = np.maximum(width, number(0)) * np.maximum(height, number(0))
        with np.errstate(invalid="ignore"):  # two empty boxes: 0 / 0 is no overlap, as every comparison with NaN fails
            iou = inner / (area[best] + area[rest] - inner)
        if method == 2:
            left[rest] *= np.exp(-(iou * iou) / number(sigma))
        else:
            decay = 1 - iou if method == 1 else np.zeros_like(iou)
            left[rest] *= np.where(iou >= number(iou_threshold), decay, number(1))
        alive = ~(left[rest] < number(min_score))
        count = int(alive.sum())
        gaps, movers = np.flatnonzero(~alive[:count]), count + np.flatnonzero(alive[count:])[::-1]
        rest[gaps] = rest[movers]
        order = order[: i + 1 + count]
        i += 1
    kept = torch.from_numpy(order)
    dets[: len(order), :4] = boxes[kept]
    dets[: len(order), 4] = torch.from_numpy(left[order])
    return kept


def _deform(features: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None) -> list[Tensor]:
    """The five tensors of torchvision's deformable convolution, with stand-ins for the absent ones."""
    mask = offset.new_zeros((offset.shape[0], 0)) if mask is None else mask
    bias = weight.new_zeros(weight.shape[0]) if bias is None else bias
    return [_full(tensor) for tensor in (features, weight, offset, mask, bias)]


def deform_conv_forward(
    features: Tensor, weight: Tensor, offset: Tensor, output: Tensor, _columns: Tensor, _ones: Tensor, **settings: int
) -> None:
    """Deformable convolution, Dai et al., arXiv 1703.06211. Fills `output` (n, c_out, h_out, w_out).

    Args:
        features: (n, c_in, h, w).
        weight: (c_out, c_in / group, kH, kW).
        offset: (n, deformable_group * kH * kW * 2, h_out, w_out): dy, dx of every tap, in pixels of `features`.
        output: filled in place.
        settings: `DEFORM_SETTINGS`.
    """
    numbers = [settings[name] for name in DEFORM_SETTINGS]
    output.copy_(_kernel("deform_conv2d")(*_deform(features, weight, offset, None, None), *numbers, False))


def deform_conv_backward_input(
    features: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_features: Tensor,
    grad_offset: Tensor,
    weight: Tensor,
    _columns: Tensor,
    **settings: int,
) -> None:
    """Adds the gradients of `deform_conv_forward` by `features` and `offset` to tensors of their shapes."""
    numbers = [settings[name] for name in DEFORM_SETTINGS]
    tensors = _deform(features, weight, offset, None, None)
    gradients = _kernel("_deform_conv2d_backward")(_full(grad_output), *tensors, *numbers, False)
    grad_features += gradients[0]
    grad_offset += gradients[2]


def deform_conv_backward_parameters(
    features: Tensor,
    offset: Tensor,
    grad_output: Tensor,
    grad_weight: Tensor,
    _columns: Tensor,
    _ones: Tensor,
    *,
    scale: float,
    **settings: int,
) -> None:
    """Adds `scale` times the gradient of `deform_conv_forward` by the weight to `grad_weight`."""
    numbers = [settings[name] for name in DEFORM_SETTINGS]
    tensors = _deform(features, grad_weight, offset, None, None)  # it does not depend on the weight's values
    gradients = _kernel("_deform_conv2d_backward")(_full(grad_output), *tensors, *numbers, False)
    grad_weight += scale * gradients[1]


def modulated_deform_conv_forward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    _ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    _columns: Tensor,
    *,
    with_bias: bool,
    **settings: int,
) -> None:
    """Deformable convolution with a factor for every tap, Zhu et al., arXiv 1811.11168. Fills `output`.

    Args:
        features: (n, c_in, h, w).
        weight: (c_out, c_in / group, kernel_h, kernel_w).
        bias: (c_out,), read if `with_bias`.
        offset: (n, deformable_group * kernel_h * kernel_w * 2, h_out, w_out), dy, dx in pixels of `features`.
        mask: (n, deformable_group * kernel_h * kernel_w, h_out, w_out).
        output: (n, c_out, h_out, w_out), filled in place.
        with_bias: whether there is one.
        settings: `MODULATED_SETTINGS`.
    """
    numbers = [settings[name] for name in MODULATED_SETTINGS]
    tensors = _deform(features, weight, offset, mask, bias if with_bias else None)
    output.copy_(_kernel("deform_conv2d")(*tensors, *numbers, True))


def modulated_deform_conv_backward(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    _ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    _columns: Tensor,
    grad_features: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    *,
    with_bias: bool,
    **settings: int,
) -> None:
    """Adds the gradients of `modulated_deform_conv_forward` to tensors of the shapes of its inputs."""
    numbers = [settings[name] for name in MODULATED_SETTINGS]
    tensors = _deform(features, weight, offset, mask, bias if with_bias else None)
    gradients = _kernel("_deform_conv2d_backward")(_full(grad_output), *tensors, *numbers, True)
    wanted = [grad_features, grad_weight, grad_offset, grad_mask]
    for total, gradient in zip([*wanted, grad_bias] if with_bias else wanted, gradients, strict=False):
        total.add_(gradient)


def _focal_parts(logits: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The sign that turns every term's logit into one for the right answer, and every term's factor: both (n, c)."""
    positive = target[:, None] == torch.arange(logits.shape[1], device=target.device)
    sign = torch.full_like(logits, -1).masked_fill_(positive, 1)
    factor = torch.full_like(logits, 1 - alpha).masked_fill_(positive, alpha)
    return sign, factor * weight[target][:, None] if weight.numel() else factor


def sigmoid_focal_loss_forward(
    logits: Tensor, target: Tensor, weight: Tensor, output: Tensor, *, gamma: float, alpha: float
) -> None:
    """Focal loss, Lin et al., arXiv 1708.02002: -alpha_t (1 - p_t)^gamma log(p_t), p = sigmoid(logit).

    Args:
        logits: (n, c).
        target: int64 (n,): the class, or c for background.
        weight: (c,), a factor by the target's class, which then must not be background; or empty.
        output: (n, c), filled in place.
        gamma: the focusing exponent.
        alpha: factor of the positive terms; the negative ones get 1 - alpha.
    """
    logits = _full(logits)
    sign, factor = _focal_parts(logits, target, weight, alpha)
    right = sign * logits
    output.copy_(-factor * torch.sigmoid(-right) ** gamma * torch.nn.functional.logsigmoid(right))


def sigmoid_focal_loss_backward(
    logits: Tensor, target: Tensor, weight: Tensor, grad_logits: Tensor, *, gamma: float, alpha: float
) -> None:
    """Fills `grad_logits` (n, c) with the derivative of each term of `sigmoid_focal_loss_forward` by its logit."""
    logits = _full(logits)
    sign, factor = _focal_parts(logits, target, weight, alpha)
    right = sign * logits
    miss = torch.sigmoid(-right)
    slope = miss**gamma * (gamma * (1 - miss) * torch.nn.functional.logsigmoid(right) - miss)
    grad_logits.copy_(sign * factor * slope)


def _require_average(pool_mode: int) -> None:
    if pool_mode != 1:
        message = (
            "RoIAlign(pool_mode='max') is not among the operators that ld-deploy supplies, only 'avg' is: "
            "use pool_mode='avg', or install a compiled mmcv instead of mmcv-lite"
        )
        raise BackendMissingError(message)


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    _argmax_y: Tensor,
    _argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign, He et al., arXiv 1703.06870. Fills `output` (k, c, aligned_height, aligned_width).

    Args:
        features: (n, c, h, w).
        rois: (k, 5): index of the image, x1 y1 x2 y2 in pixels of the image.
        output: filled in place.
        aligned_height: bins, vertically.
        aligned_width: bins, horizontally.
        spatial_scale: pixels of `features` per pixel of the image.
        sampling_ratio: samples per bin and direction, 0 for as many as the bin is long, rounded up.
        pool_mode: 1, the average.
        aligned: shift by half a pixel, and let boxes be smaller than one.

    Raises:
        BackendMissingError: `pool_mode` is 0, the maximum.
    """
    _require_average(pool_mode)
    features = _full(features)
    bins = (aligned_height, aligned_width)
    roi_align = _kernel("roi_align")
    output.copy_(roi_align(features, rois.to(features.dtype), spatial_scale, *bins, max(sampling_ratio, 0), aligned))


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    _argmax_y: Tensor,
    _argmax_x: Tensor,
    grad_features: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Adds the gradient of `roi_align_forward` by the features to `grad_features` (n, c, h, w).

    Raises:
        BackendMissingError: `pool_mode` is 0, the maximum.
    """
    _require_average(pool_mode)
    grad_output = _full(grad_output)
    rois = rois.to(grad_output.dtype)
    sizes = (aligned_height, aligned_width, *grad_features.shape)
    backward = _kernel("_roi_align_backward")
    grad_features += backward(grad_output, rois, spatial_scale, *sizes, max(sampling_ratio, 0), aligned)
