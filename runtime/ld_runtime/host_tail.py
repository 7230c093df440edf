"""What follows the network of an ONNX file, computed by our host library in the place of the runtime."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from ld_runtime import native
from ld_runtime.engines import EngineOutput
from ld_runtime.errors import ConfigError, EngineError, InputError
from ld_runtime.onnx_file import Tail, cut_tail
from ld_runtime.rotated_nms import RotatedNmsSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from ld_runtime.cluster_nms import Detected
    from ld_runtime.engines import NmsPlace
    from ld_runtime.model_card import ModelCard
    from ld_runtime.wire_format import Buffer


@dataclass(frozen=True)
class HostTail:
    """The node that ends a file, to be computed on the host: decode and NMS, or the NMS alone.

    Args:
        node: which one.
        card: of the file: its numbers are those of the node, not rounded to float32.
    """

    node: Tail
    card: ModelCard

    @classmethod
    def take(
        cls, content: Buffer, *, card: ModelCard, nms: NmsPlace | None, on_cpu: bool
    ) -> tuple[bytes, HostTail | None]:
        """Cuts the node off a file, where it is to be computed here.

        Args:
            content: an ONNX file.
            card: of that file.
            nms: None: `native` on the CPU where the library was built, else `graph`.
            on_cpu: whether the runtime's outputs lie in host memory without a copy.

        Raises:
            BackendMissingError: `native` was asked for and was not built.
            ConfigError: `native` was asked for and the file does not end in such a node.
            EngineError: The content is damaged, or the node has other numbers than the card.
        """
        if nms == "graph" or (nms is None and not (on_cpu and native.is_available())):
            return bytes(content), None
        native.load_library()
        trunk, node = cut_tail(content)
        if node is None and nms == "native":
            raise ConfigError("the file does not end in our NMS node, so nothing native can take its place: nms=graph")
        if node is None:
            return trunk, None
        _check_numbers(node, card)
        return trunk, cls(node, card)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the outputs that the network is asked for."""
        return self.node.inputs

    def candidates(self, maps: Sequence[NDArray[Any]]) -> Detected:
        """From the head's maps of one image, in the order of `inputs`, to candidates in pixels of the canvas.

        Raises:
            ConfigError: The node has no decode in it.
        """
        if not self.node.decodes:
            raise ConfigError(f"the file ends in {self.node.op_type}, whose decode is among the layers of the network")
        levels, card = len(maps) // 2, self.card
        function = native.rotated_gfl_candidates if card.is_rotated else native.gfl_candidates
        return function(
            [one[0] for one in maps[:levels]],
            [one[0] for one in maps[levels:]],
            strides=self.node.ints("strides"),
            rule=card.candidates,
            score_threshold=card.nms.score_threshold,
        )

    def nms(self, candidates: Detected) -> Detected:
        """From candidates of one image to detections."""
        settings = self.card.nms
        if isinstance(settings, RotatedNmsSettings):
            return native.rotated_cluster_nms(*candidates, settings=settings)
        return native.cluster_diou_nms(*candidates, settings=settings)

    def run(self, outputs: Sequence[NDArray[Any]]) -> EngineOutput:
        """From the network's outputs, in the order of `inputs`, to detections."""
        settings = self.card.nms
        if not self.node.decodes:
            boxes, scores, labels = outputs
            found = [self.nms(one) for one in zip(boxes, scores, labels, strict=True)]
            return padded(found, max_detections=settings.max_detections)
        levels = len(outputs) // 2
        maps = outputs[:levels], outputs[levels:]
        strides, candidates = self.node.ints("strides"), self.card.candidates
        if isinstance(settings, RotatedNmsSettings):
            return native.rotated_gfl_detect(*maps, strides=strides, nms=settings, candidates=candidates)
        return native.gfl_detect(*maps, strides=strides, nms=settings, candidates=candidates)


def _check_numbers(node: Tail, card: ModelCard) -> None:
    """The runtimes compute what stands in the node, and our library what stands in the card."""
    promised = asdict(card.nms) | (asdict(card.candidates) if node.decodes else {})
    if node.is_rotated != card.is_rotated:
        message = f"the file ends in {node.op_type}, and its model card says that boxes are {card.box_format}"
        raise EngineError(f"{message}: a tool has changed one of them; export the model again")
    for name, value in promised.items():
        found = node.attributes.get(name)
        if not isinstance(found, int | float) or np.float32(found) != np.float32(value):
            message = f"the file's {node.op_type} has {name} {found}, and its model card says {value}"
            raise EngineError(f"{message}: a tool has changed one of them; export the model again")


def padded(
    found: Sequence[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]], *, max_detections: int
) -> EngineOutput:
    """Boxes (n, 4) or rotated (n, 5), scores (n,) and labels (n,) of each image, as one batch."""
    batch, numbers = len(found), found[0][0].shape[1]
    output = EngineOutput(
        num_detections=np.array([len(scores) for _, scores, _ in found], np.int32),
        boxes=np.zeros((batch, max_detections, numbers), np.float32),
        scores=np.zeros((batch, max_detections), np.float32),
        labels=np.full((batch, max_detections), -1, np.int64),
    )
    for index, (boxes, scores, labels) in enumerate(found):
        output.boxes[index, : len(scores)] = boxes
        output.scores[index, : len(scores)] = scores
        output.labels[index, : len(scores)] = labels
    return output


def check_images(images: NDArray[np.uint8]) -> None:
    """Raises an InputError where these are no canvases uint8 (N, H, W, 3)."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or not images.size:
        raise InputError(f"need canvases uint8 (N, H, W, 3) with N of 1 or more, got {images.dtype} {images.shape}")
