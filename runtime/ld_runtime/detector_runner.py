"""`Detector` as the benchmark times it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_runtime.engines import DeviceTimed
from ld_runtime.preprocess import decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from ld_runtime.detector import Detector
    from ld_runtime.engines import EngineOutput
    from ld_runtime.preprocess import Prepared


class DetectorRunner:
    """A `ld_runtime.bench.StagedRunner`: the stages are those of a call to the detector."""

    def __init__(self, detector: Detector, *, name: str, settings: Mapping[str, str | int | float]) -> None:
        self.name = name
        self.settings = settings
        self._detector = detector

    def decode(self, path: Path) -> NDArray[np.uint8]:  # noqa: D102 - the protocol says it
        return decode(path)

    def preprocess(self, image: NDArray[np.uint8]) -> Prepared:  # noqa: D102
        return self._detector.prepare(image)

    def canvas_hw(self, prepared: Prepared) -> tuple[int, int]:  # noqa: D102
        return prepared.canvas.shape[0], prepared.canvas.shape[1]

    def engine(self, prepared: Sequence[Prepared]) -> EngineOutput:  # noqa: D102
        return self._detector.run(prepared)

    def device_spans(self) -> Mapping[str, float]:  # noqa: D102
        engine = self._detector.engine
        return engine.device_spans() if isinstance(engine, DeviceTimed) else {}

    def finish(self, outputs: EngineOutput, prepared: Sequence[Prepared]) -> int:  # noqa: D102
        return sum(len(self._detector.finish(outputs, one, index=index)) for index, one in enumerate(prepared))
