"""What could run faster here and is not there yet: INT8 of a float32 file, engines for the GPU at hand."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ld_export import deployed_file
from ld_export.build_settings import BuildSettings
from ld_export.quantize import evenly, quantize
from ld_export.quantize_images import choose_images
from ld_export.quantize_report import report_path
from ld_export.tensorrt_engine import build_engine
from ld_runtime.bench_report import list_sha256, sha256_of
from ld_runtime.cuda_device import CudaDevice
from ld_runtime.engine_file import read_engine
from ld_runtime.engines import ModelSpec
from ld_runtime.errors import LdDeployError
from ld_runtime.missing_files import MadeFiles, MakeSettings
from ld_runtime.recommendation import NotTried

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ld_runtime.engine_file import EngineBackend
    from ld_runtime.model_card import ModelCard, Precision

LIBRARIES: dict[EngineBackend, str] = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
ENGINE_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16")


def make_missing(given: Sequence[ModelSpec], *, settings: MakeSettings, say: Callable[[str], None]) -> MadeFiles:
    """Makes the files that were not given: INT8 where none is, and on a GPU engines of each installed library.

    OpenVINO's bf16 needs no file of its own. A file that cannot be made ends nothing: it is told in the result. One
    that is there, made of the same content with the same images or settings, is taken as it is.

    Args:
        given: `.onnx` files and engines; those of a named backend are left alone.
        settings: where, for what and of which images.
        say: told in a line what is done next.
    """
    made = _Made(settings, say)
    sources = {one.path: _card(one.path) for one in given if one.path.suffix.lower() == ".onnx" and not one.backend}
    cards = {path: card for path, card in sources.items() if card is not None}
    if not any(card.precision == "int8" for card in cards.values()):
        for path, card in list(cards.items()):
            if card.precision == "fp32" and (new := made.int8(path, card)):
                cards[new] = deployed_file.read(new)[1]
    if settings.device != "cpu":
        for path, card in cards.items():
            for backend, module in LIBRARIES.items():
                if find_spec(module) is not None:
                    for precision in ENGINE_PRECISIONS if card.precision == "fp32" else (card.precision,):
                        made.engine(path, backend=backend, precision=precision)
    return MadeFiles(tuple(made.specs), tuple(made.reused), tuple(made.not_made))


class _Made:
    def __init__(self, settings: MakeSettings, say: Callable[[str], None]) -> None:
        self._settings, self._say = settings, say
        self.specs: list[ModelSpec] = []
        self.reused: list[str] = []
        self.not_made: list[NotTried] = []

    def int8(self, source: Path, card: ModelCard) -> Path | None:
        output = self._settings.folder / f"{source.stem}.int8.onnx"
        if self._settings.calibration is None:
            reason = "INT8 is calibrated on images, best of the training set"
            self.not_made.append(NotTried(str(output), reason, "give --calibration IMAGES"))
            return None
        try:
            chosen = choose_images(
                images=self._settings.calibration, annotations=None, config=None, split="val", card=card
            )
            calibration = evenly(chosen.calibration, self._settings.count)
            facts = {"source_sha256": sha256_of(source), "calibration_images_sha256": list_sha256(calibration)}
            if _is_made_of(output, facts):
                self.reused.append(str(output))
            else:
                self._say(f"quantize {source} on {len(calibration)} images -> {output}")
                quantize(source, output=output, calibration=calibration, compared=chosen.compared)
        except LdDeployError as error:
            self.not_made.append(NotTried(str(output), str(error)))
            return None
        self.specs.append(ModelSpec(output))
        return output

    def engine(self, source: Path, *, backend: EngineBackend, precision: Precision) -> None:
        name = source.stem if source.stem.endswith(f".{precision}") else f"{source.stem}.{precision}"
        output = self._settings.folder / f"{name}.{backend}.engine"
        before = _engine_key(output)
        try:
            device = CudaDevice(int(self._settings.device.partition(":")[2] or 0))
            capability = device.facts.compute_capability
            build = BuildSettings(
                backend=backend,
                precision=precision,
                compute_capabilities=(capability,) if backend == "tensorrt-rtx" else (),
            )
            self._say(f"build {source} for {backend} in {precision} -> {output}")
            record = build_engine(source, output=output, settings=build)
        except LdDeployError as error:
            self.not_made.append(NotTried(str(output), str(error)))
            return
        if record.cache_key == before:
            self.reused.append(str(output))
        self.specs.append(ModelSpec(output))


def _card(path: Path) -> ModelCard | None:
    """None for a file that cannot be read: measuring it says why."""
    try:
        return deployed_file.read(path)[1]
    except LdDeployError:
        return None


def _is_made_of(output: Path, facts: dict[str, Any]) -> bool:
    """Whether an INT8 file is whole, and by its report of that source and those images."""
    try:
        known = json.loads(report_path(output).read_text(encoding="utf-8"))
        found = {**known, **known.get("facts", {})}
        return {key: found.get(key) for key in facts} == facts and found.get("onnx_sha256") == sha256_of(output)
    except (OSError, ValueError, TypeError, AttributeError):  # none there, or not a report
        return False


def _engine_key(engine: Path) -> str | None:
    try:
        return read_engine(engine)[1].cache_key
    except LdDeployError:
        return None
