"""Which part of an engine's difference to PyTorch is its .onnx file's, and which is the engine's own."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ld_export.explain import NEGLIGIBLE, swap
from ld_export.explain_stages import can_be_split
from ld_runtime.bench_report import sha256_of
from ld_runtime.detector import Detector
from ld_runtime.engine_file import read_record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ld_export.explain import Explanation, Swap
    from ld_runtime.detections import Detections
    from ld_runtime.engine_file import EngineRecord


@dataclass(frozen=True)
class EngineExplanation:
    """An engine gives no maps: the stages are those of its .onnx file on ONNX Runtime, then the engine as a whole.

    Args:
        name: of the engine.
        record: the JSON beside it.
        onnx: the stages of the file that it was built from, against PyTorch.
        step: from that file's boxes to the engine's.
    """

    name: str
    record: EngineRecord
    onnx: Explanation
    step: Swap

    def sentence(self) -> str:
        """What it comes to."""
        others = f"{self.onnx.sentence()} (on ONNX Runtime, against PyTorch)"
        if self.step.moved_share <= NEGLIGIBLE:
            return f"{self.name}: its boxes are those of {self.onnx.name} on ONNX Runtime; {others}"
        moved = f"moves {self.step.moved} boxes, {self.step.moved_share:.1%} of both, against {self.onnx.name}"
        if self.record.precision != self.onnx.precision:
            why = f"its network computes in {self.record.precision}, the file's in {self.onnx.precision}"
        else:
            why = f"both networks compute in {self.record.precision}, with other kernels"
        nms = f"decode and NMS are its {self.record.nms} in fp32, and an engine does not show them apart"
        return f"{self.name}: the engine {moved}: {why}; {nms}. {others}"

    def content(self) -> dict[str, Any]:
        """The .onnx file's explanation as one JSON object, with the engine's own step in it."""
        engine = {
            **asdict(self.step),
            "precision": self.record.precision,
            "nms": self.record.nms,
            "onnx": self.record.onnx,
            "onnx_sha256": self.record.onnx_sha256,
        }
        return {**self.onnx.content(), "name": self.name, "engine": engine, "sentence": self.sentence()}


def explain_engine(
    engine: Path,
    *,
    name: str,
    boxes: Sequence[Detections],
    images: Sequence[Path],
    explain_onnx: Callable[[str, Detector], Explanation],
    average_precision: Callable[[Sequence[Detections]], float | None],
) -> EngineExplanation | str:
    """Explains the .onnx file that lies beside an engine, and the step from it to the engine.

    Args:
        engine: the file.
        name: what the report calls it.
        boxes: what the engine found in each image.
        images: their files.
        explain_onnx: gives the stages of a file, by its name and detector.
        average_precision: of detections of all images.

    Returns:
        The explanation; or why there is none, and what can be done.

    Raises:
        EngineError: The engine has no readable JSON beside it, or the .onnx file cannot be run.
    """
    record = read_record(engine)
    source = engine.with_name(record.onnx)
    wanted = f"{record.onnx} with sha256 {record.onnx_sha256[:12]}, which it was built from"
    message = f"{name}: an engine gives no maps, its .onnx file does"
    if not source.is_file():
        return f"{message}: put {wanted}, into {engine.parent}"
    if (found := sha256_of(source)) != record.onnx_sha256:
        way_out = f"put {wanted}, there, or build the engine again: {record.rebuild_command(engine)}"
        return f"{message}, and {source} is another one (sha256 {found[:12]}): {way_out}"
    detector = Detector(source)
    if not can_be_split(detector):
        way_out = "the native host library is needed (`ld-deploy doctor`)"
        return f"{message}, and the decode and NMS of {source} run in the graph: {way_out}"
    found_by = {source.name: [detector(path) for path in images], name: list(boxes)}
    ap = {key: average_precision(one) for key, one in found_by.items()}
    return EngineExplanation(name, record, explain_onnx(source.name, detector), swap(found_by, ap, source.name, name))
