"""TensorRT by the library of TensorRT-RTX, whose Python interface is the same; no GPU opens what it built."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ld_export import build_target, tensorrt_engine
from ld_export.build_settings import BuildProfile, BuildSettings
from ld_export.tensorrt_engine import build_engine
from ld_runtime.engine_file import EngineRecord
from ld_runtime.errors import EngineError


class Renamed:
    """`tensorrt_rtx` under another name and version, which notes the settings of a build."""

    __version__ = "11.4.0.106"
    __name__ = "tensorrt"

    def __init__(self) -> None:
        import tensorrt_rtx

        self.library = tensorrt_rtx
        self.configs: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def Builder(self, logger: Any) -> Any:  # noqa: N802 - the library's name
        builder = self.library.Builder(logger)
        real = builder.create_builder_config

        class Noting:
            def __getattr__(_self, name: str) -> Any:  # noqa: N805
                return getattr(builder, name)

            def create_builder_config(_self) -> Any:  # noqa: N805
                self.configs.append(real())
                return self.configs[-1]

        return Noting()


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Renamed:
    library = Renamed()
    monkeypatch.setitem(sys.modules, "tensorrt", library)  # type: ignore[arg-type]
    facts = SimpleNamespace(name="Fake GPU", compute_capability="8.9")
    monkeypatch.setattr(build_target, "CudaDevice", lambda: SimpleNamespace(facts=facts))
    return library


def inspected(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the inspector says of the engine, which cannot be opened here."""
    text = json.dumps({"Layers": [{"Inputs": [{"Name": "a", "Format/Datatype": words}]}]})
    inspector = SimpleNamespace(get_engine_information=lambda _format: text)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    monkeypatch.setattr(tensorrt_engine, "deserialize", lambda *_, **__: (None, engine))


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_tensorrt_builds_for_the_gpu_at_hand(
    student: Path, tmp_path: Path, tensorrt: Renamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected("Half", monkeypatch)
    output = tmp_path / "student.engine"
    shares: list[float] = []
    settings = BuildSettings(backend="tensorrt", precision="fp16", profile=BuildProfile(batch=(1, 1, 1)))
    record = build_engine(student, output=output, settings=settings, meter=lambda _name, share: shares.append(share))
    assert EngineRecord.from_json((tmp_path / "student.engine.json").read_text(encoding="utf-8")) == record
    assert (record.backend, record.backend_version, record.gpu) == ("tensorrt", "11.4.0.106", "Fake GPU")
    assert record.compute_capabilities == ("8.9",)
    assert (record.nms, record.plugin) == ("function", None)
    assert record.precision_proof.engine is not None
    assert record.precision_proof.engine.layers == {"fp16": 1.0}
    (config,) = tensorrt.configs
    assert not config.get_flag(tensorrt.BuilderFlag.TF32)
    assert config.profiling_verbosity == tensorrt.ProfilingVerbosity.DETAILED
    assert (tmp_path / "timing.cache").stat().st_size > 0
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len(set(shares)) > 10


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_an_engine_without_its_precision_is_not_written(
    student: Path, tmp_path: Path, tensorrt: Renamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected("Float", monkeypatch)
    settings = BuildSettings(backend="tensorrt", precision="fp16", tf32=True, timing_cache=tmp_path / "mine")
    with pytest.raises(EngineError, match=r"student.engine is called fp16.*layers 100% fp32"):
        build_engine(student, output=tmp_path / "student.engine", settings=settings)
    assert tensorrt.configs[0].get_flag(tensorrt.BuilderFlag.TF32)
    assert [one.name for one in tmp_path.iterdir()] == ["mine"]


def test_a_timing_cache_of_another_gpu_is_begun_anew(tmp_path: Path) -> None:
    given: list[bytes] = []
    config = SimpleNamespace(
        create_timing_cache=lambda content: content,
        set_timing_cache=lambda cache, _ignore: given.append(cache) or cache == b"",
    )
    said: list[str] = []
    build = tensorrt_engine._Build(
        None, BuildSettings(backend="tensorrt"), None, said.append, lambda _name, _share: None
    )
    (tmp_path / "timing.cache").write_bytes(b"other")
    assert build._load_timing_cache(config, tmp_path / "a.engine") == tmp_path / "timing.cache"
    assert given == [b"other", b""]
    assert "begun anew" in said[0]


@pytest.mark.filterwarnings("ignore:Use Deprecated in TensorRT-RTX:DeprecationWarning")
def test_an_engine_is_not_lost_to_its_timing_cache(
    student: Path, tmp_path: Path, tensorrt: Renamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspected("Float", monkeypatch)
    (tmp_path / "mine").mkdir()
    said: list[str] = []
    settings = BuildSettings(backend="tensorrt", timing_cache=tmp_path / "mine", profile=BuildProfile(batch=(1, 1, 1)))
    build_engine(student, output=tmp_path / "student.engine", settings=settings, progress=said.append)
    assert len(tensorrt.configs) == 1
    assert (tmp_path / "student.engine").stat().st_size > 0
    assert any("measures again: cannot write" in line for line in said)
