"""Fixtures of the engine tests: a built engine's files, and a GPU in host memory that opens them."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ld_runtime.engine_file import EngineRecord, PluginUse, ShapeRange, write_record
from ld_runtime.model_card import ModelCard
from ld_runtime.precision_proof import PrecisionProof, TypeShares
from tests.runtime.fake_cuda import FakeRuntime
from tests.runtime.fake_tensorrt import CONTENT, FakeTensorRt

VERSION = "11.4.0.106"


@pytest.fixture
def record(card: ModelCard) -> EngineRecord:
    return EngineRecord(
        card=replace(card, precision="fp16"),
        backend="tensorrt",
        backend_version=VERSION,
        compute_capabilities=("8.9",),
        gpu="Fake GPU",
        profile=ShapeRange((1, 32, 32, 3), (1, 64, 96, 3), (2, 96, 96, 3)),
        tf32=False,
        nms="plugin",
        plugin=PluginUse(op="GFLDetect", sha256="ab", serialized=True),
        precision_proof=PrecisionProof(graph=TypeShares.of(layers=["fp16"], tensors=["fp16"])),
        onnx="student.onnx",
        onnx_sha256="cd",
        engine_sha256=hashlib.sha256(CONTENT).hexdigest(),
        cache_key="ef",
        build_seconds=1.0,
    )


@pytest.fixture
def engine_file(tmp_path: Path, record: EngineRecord) -> Any:
    """Writes an engine and its JSON with some fields changed."""

    def make(content: bytes = CONTENT, **fields: object) -> Path:
        path = tmp_path / "student.engine"
        path.write_bytes(content)
        write_record(replace(record, **fields), path)  # type: ignore[arg-type]
        return path

    return make


@pytest.fixture
def gpu() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def library(gpu: FakeRuntime, monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    library = FakeTensorRt(gpu, version=VERSION)
    monkeypatch.setitem(sys.modules, "tensorrt", library)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)  # type: ignore[arg-type]
    return library


def images(*pixels: tuple[int, int, int], hw: tuple[int, int] = (64, 96)) -> NDArray[np.uint8]:
    batch = np.zeros((len(pixels), *hw, 3), np.uint8)
    batch[:, 0, 0] = pixels
    return batch
