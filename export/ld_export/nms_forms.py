"""Every form of the NMS behind one signature, for a report: our own, the published one, and plain NMS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torchvision.ops import batched_nms

from ld_deploy.voting_nms import cluster_diou_nms_torch
from ld_export.nms_function import INPUTS, OUTPUTS, nms_model
from ld_export.onnx_check import open_session
from ld_export.published_nms import published_nms
from ld_runtime import native
from ld_runtime.cluster_nms import cluster_diou_nms

if TYPE_CHECKING:
    from ld_runtime.model_card import NmsSettings

TWIN, NATIVE, TORCH, ONNX = "numpy twin", "native", "torch form", "ONNX function"
PUBLISHED, PLAIN = "published PyTorch form", "plain NMS (torchvision)"
PLAIN_IOU = 0.6

# boxes (n, 4), scores (n,), labels (n,), best first -> the same of the detections
Form = Callable[[Any, Any, Any], Any]


def _twin(settings: NmsSettings, _threads: int) -> Form:
    keywords = asdict(settings)
    return lambda boxes, scores, labels: cluster_diou_nms(boxes, scores, labels, backend="numpy", **keywords)


def _native(settings: NmsSettings, _threads: int) -> Form:
    return partial(native.cluster_diou_nms, settings=settings)


def _torch_form(settings: NmsSettings, _threads: int) -> Form:
    keywords = asdict(settings)

    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels)
        return tuple(one.numpy() for one in cluster_diou_nms_torch(*tensors, **keywords))

    return form


def _onnx_function(settings: NmsSettings, threads: int) -> Form:
    session = open_session(nms_model(settings=settings), threads=threads)

    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        feed = dict(zip(INPUTS, (boxes[None], scores[None], labels[None]), strict=True))
        number, *found = session.run(list(OUTPUTS), feed)
        return tuple(one[0, : number[0, 0]] for one in found)

    return form


def _published(settings: NmsSettings, _threads: int) -> Form:
    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        tensors = torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels)
        return tuple(one.numpy() for one in published_nms(*tensors, settings=settings))

    return form


def _plain(settings: NmsSettings, _threads: int) -> Form:
    def form(boxes: Any, scores: Any, labels: Any) -> Any:
        keep = batched_nms(torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(labels), PLAIN_IOU)
        kept = keep[: settings.max_detections].numpy()
        return boxes[kept], scores[kept], labels[kept]

    return form


# From the settings and the number of threads. The order is that of the report: the twin first.
FORMS: dict[str, Callable[[NmsSettings, int], Form]] = {
    TWIN: _twin,
    NATIVE: _native,
    TORCH: _torch_form,
    ONNX: _onnx_function,
    PUBLISHED: _published,
    PLAIN: _plain,
}
