"""The stages between file and boxes, each in PyTorch and in a deployed file, so that they can be swapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch

from ld_runtime.engines import Split
from ld_runtime.host_tail import padded
from ld_runtime.preprocess import Prepared

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Detected
    from ld_runtime.detections import Detections
    from ld_runtime.detector import Detector
    from ld_runtime.host_tail import HostTail

Stage = Literal["preprocess", "trunk", "decode", "nms"]
STAGES: tuple[Stage, ...] = ("preprocess", "trunk", "decode", "nms")

Maps = list["NDArray[np.float32]"]


class Stages(Protocol):
    """All stages of one side, one image at a time."""

    def preprocess(self, index: int) -> Prepared:
        """The canvas of an image: uint8 (H, W, 3), BGR, resized and padded, not normalised."""

    def trunk(self, canvas: NDArray[np.uint8]) -> Maps:
        """By level, class logits (1, C, h, w); then by level, edge logits (1, 4 * (reg_max + 1), h, w), or 5 * ...."""

    def decode(self, maps: Maps) -> Detected:
        """The candidates of the maps: boxes in pixels of the canvas, scores, labels; best first."""

    def nms(self, candidates: Detected) -> Detected:
        """Detections, boxes in pixels of the canvas."""


class TorchStages:
    """What mmdet's `test_step` does, in its parts.

    Args:
        model: a detector in eval mode whose head has the deployed file's NMS (`VotingPostProcess`).
        dataset: mmdet's, with its test pipeline.
        indices: of its records.
    """

    def __init__(self, model: Any, dataset: Any, indices: Sequence[int]) -> None:
        self._model, self._dataset, self._indices = model, dataset, indices

    def preprocess(self, index: int) -> Prepared:
        """See `Stages`. The pixels are those that the model's own preprocessor gave, its normalisation undone."""
        from mmengine.dataset import pseudo_collate

        preprocessor = self._model.data_preprocessor
        data = preprocessor(pseudo_collate([self._dataset[self._indices[index]]]))
        pixels = (data["inputs"][0] * preprocessor.std + preprocessor.mean).round().to(torch.uint8)
        if preprocessor._channel_conversion:
            pixels = pixels.flip(0)
        meta = data["data_samples"][0].metainfo
        width, height = meta["scale_factor"][:2]
        image_h, image_w = meta["ori_shape"][:2]
        canvas = np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        return Prepared(canvas, (float(width), float(height)), (int(image_h), int(image_w)))

    @torch.no_grad()
    def trunk(self, canvas: NDArray[np.uint8]) -> Maps:
        """See `Stages`; the normalisation is the trunk's, as in the deployed file."""
        preprocessor = self._model.data_preprocessor
        image = torch.from_numpy(canvas).permute(2, 0, 1).float()
        if preprocessor._channel_conversion:
            image = image.flip(0)
        image = (image - preprocessor.mean) / preprocessor.std
        # GFLv2 has its quality in the first maps, and adds those of the class alone, which no decode looks at.
        class_logits, edge_logits, *_ = self._model.bbox_head(self._model.extract_feat(image[None]))
        return [one.float().numpy() for one in (*class_logits, *edge_logits)]

    def decode(self, maps: Maps) -> Detected:
        """See `Stages`."""
        from ld_deploy.models.gflv2_head import GFLv2VotingHead

        head = self._model.bbox_head
        tensors = [torch.from_numpy(one) for one in maps]
        levels = len(maps) // 2
        class_logits, edge_logits = tensors[:levels], tensors[levels:]
        more = [class_logits] if isinstance(head, GFLv2VotingHead) else []
        stride_w, stride_h = head.prior_generator.strides[0]
        height, width = maps[0].shape[2:]
        canvas = (height * stride_h, width * stride_w)
        meta = {"img_shape": canvas, "batch_input_shape": canvas, "scale_factor": (1.0, 1.0), "ori_shape": canvas}
        found = head.predict_by_feat(
            class_logits, edge_logits, *more, batch_img_metas=[meta], rescale=False, with_nms=False
        )[0]
        best = found.scores.argsort(descending=True, stable=True)[: head.test_cfg.pre_nms_top_k]
        boxes, scores, labels = (found[name][best].numpy() for name in ("bboxes", "scores", "labels"))
        return boxes, scores, labels

    def nms(self, candidates: Detected) -> Detected:
        """See `Stages`."""
        from ld_deploy.rotated.post_process import NMS_TYPE as ROTATED_NMS_TYPE
        from ld_deploy.rotated_voting_nms import rotated_cluster_nms_torch
        from ld_deploy.voting_nms import cluster_diou_nms_torch
        from ld_runtime.rotated_nms import RotatedNmsSettings

        rule = self._model.bbox_head.test_cfg
        tensors = [torch.from_numpy(one) for one in candidates]
        settings = {key: value for key, value in rule.nms.items() if key != "type"}
        settings |= {"score_threshold": rule.score_thr, "max_detections": rule.max_per_img}
        if rule.nms.type == ROTATED_NMS_TYPE:
            found = rotated_cluster_nms_torch(*tensors, settings=RotatedNmsSettings(**settings))
        else:
            found = cluster_diou_nms_torch(*tensors, **settings)
        boxes, scores, labels = (one.numpy() for one in found)
        return boxes, scores, labels


class FileStages:
    """A deployed file in its parts.

    Args:
        detector: of a file whose decode and NMS run in the host library, see `can_be_split`.
        paths: of the images.
    """

    def __init__(self, detector: Detector, paths: Sequence[Path]) -> None:
        engine = detector.engine
        assert isinstance(engine, Split)
        tail = engine.host_tail()
        assert tail is not None
        self._detector, self._paths = detector, paths
        self._engine: Split = engine
        self._tail: HostTail = tail

    def preprocess(self, index: int) -> Prepared:
        """See `Stages`."""
        return self._detector.prepare(self._paths[index])

    def trunk(self, canvas: NDArray[np.uint8]) -> Maps:
        """See `Stages`."""
        return [np.ascontiguousarray(one, np.float32) for one in self._engine.network_outputs(canvas[None])]

    def decode(self, maps: Maps) -> Detected:
        """See `Stages`."""
        return self._tail.candidates(maps)

    def nms(self, candidates: Detected) -> Detected:
        """See `Stages`."""
        return self._tail.nms(candidates)


def can_be_split(detector: Detector) -> bool:
    """Whether the maps of a file can be had, and its decode and NMS run on any maps."""
    tail = detector.engine.host_tail() if isinstance(detector.engine, Split) else None
    return tail is not None and tail.node.op_type in ("GFLDetect", "RotatedGFLDetect")


def in_image(found: Detected, prepared: Prepared, detector: Detector) -> Detections:
    """Detections in pixels of the original image, by the deployed file's own last stage."""
    return detector.finish(padded([found], max_detections=max(len(found[1]), 1)), prepared, index=0)
