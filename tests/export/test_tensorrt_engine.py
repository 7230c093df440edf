"""Engines as they are built: TensorRT-RTX for real, on the CPU; TensorRT by the same library under its name."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from ld_export import build_target, deployed_file, tensorrt_engine
from ld_export.build_progress import PhaseMeter, progress_monitor
from ld_export.build_settings import BuildProfile, BuildSettings, cache_key, profile_shapes
from ld_export.build_target import plugin_for, targets_of
from ld_export.nms_function import nms_model
from ld_export.quantize_graph import insert_quantization
from ld_export.quantize_plan import make_plan
from ld_export.tensorrt_engine import build_engine, in_precision, nms_form, up_to_date
from ld_runtime.engine_file import EngineRecord, ShapeRange, read_engine
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, LdDeployError, ModelCardError
from ld_runtime.model_card import ModelCard, NmsSettings

GPUS = ("7.5", "8.0", "8.6", "8.9", "12.0")


def card_of(path: Path) -> ModelCard:
    return deployed_file.read(path)[1]


@pytest.fixture(scope="module")
def int8_file(student: Path) -> Path:
    """Quantized with scales that are not of images: what a parser and a builder see is the same."""
    model, card = deployed_file.read(student)
    trunk, tail = deployed_file.split(model)
    plan = make_plan(trunk.graph)
    network = insert_quantization(trunk, plan=plan, scales=dict.fromkeys(set(plan.group_of.values()), 0.05))
    path = student.with_name("student.int8.onnx")
    deployed_file.write(deployed_file.join(network, tail), path, card=replace(card, precision="int8"))
    return path


@pytest.fixture(scope="module")
def engines(student: Path, int8_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Built in one interpreter of their own: no torch, no plugin, and a crash of the library is seen as one."""
    folder = tmp_path_factory.mktemp("engines")
    capabilities = [word for one in GPUS for word in ("--compute-capability", one)]
    calls = {}
    for precision in ("fp32", "fp16", "int8"):
        source = int8_file if precision == "int8" else student
        calls[precision] = ["build", str(source), "-o", str(folder / f"{precision}.engine"), *capabilities]
    calls["fp16"] += ["--precision", "fp16", "--batch", "1", "2", "4"]
    calls["bf16"] = ["build", str(student), "-o", str(folder / "bf16.engine"), "--precision", "bf16"]
    code = f"""
import sys
sys.modules["torch"] = None
from ld_runtime.cli import run
for call in {list(calls.values())!r}:
    try:
        run(call[0], call[1:])
    except SystemExit as done:
        assert not done.code, done.code
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (folder / "screen.txt").write_text(" ".join(done.stderr.split()), encoding="utf-8")
    return {precision: folder / f"{precision}.engine" for precision in calls}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "bf16"])
def test_tensorrt_rtx_builds_each_precision(
    engines: dict[str, Path], student: Path, int8_file: Path, precision: str
) -> None:
    content, record = read_engine(engines[precision])
    source = int8_file if precision == "int8" else student
    assert len(content) > 10_000
    assert (record.backend, record.nms, record.plugin, record.gpu) == ("tensorrt-rtx", "function", None, "")
    assert record.precision == precision
    assert record.card == replace(card_of(student), precision=precision)  # type: ignore[arg-type]
    assert record.onnx_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record.precision_proof.engine is None
    assert "chooses its kernels on the GPU" in record.precision_proof.remark
    graph = record.precision_proof.graph
    assert graph is not None
    assert graph.layers == {precision: 1.0}
    assert graph.tensors[precision] > (0.5 if precision != "int8" else 0.2)
    assert (
        record.compute_capabilities == GPUS if precision != "bf16" else "7.5" not in (record.compute_capabilities or ())
    )
    batches = " ".join(str(shape[0]) for shape in (record.profile.min, record.profile.opt, record.profile.max))
    assert record.rebuild_command(Path("a/b.engine")) == (
        f"`ld-deploy build {source.name} -o b.engine --backend tensorrt-rtx --precision {precision} "
        f"--batch {batches} --min-hw 32 32 --opt-hw 160 224 --max-hw 224 224`"
    )


def test_what_the_command_says_and_leaves(engines: dict[str, Path]) -> None:
    folder = engines["fp32"].parent
    screen = (folder / "screen.txt").read_text(encoding="utf-8")
    assert screen.count("NMS as function") == 4
    assert "precision fp16: graph: layers 100% fp16" in screen
    _, record = read_engine(engines["fp16"])
    assert record.profile == ShapeRange((1, 32, 32, 3), (2, 160, 224, 3), (4, 224, 224, 3))
    names = {f"{precision}.engine{end}" for precision in engines for end in ("", ".json")}
    assert {one.name for one in folder.iterdir()} == names | {"screen.txt"}


def test_an_engine_that_is_there_is_not_built_again(engines: dict[str, Path], student: Path) -> None:
    settings = BuildSettings(compute_capabilities=GPUS)
    before = engines["fp32"].stat().st_mtime_ns
    said: list[str] = []
    record = build_engine(student, output=engines["fp32"], settings=settings, progress=said.append)
    assert engines["fp32"].stat().st_mtime_ns == before
    assert len(said) == 1
    assert "is up to date" in said[0]
    assert "--force" in said[0]
    assert up_to_date(engines["fp32"], key=record.cache_key) == record
    assert up_to_date(engines["fp32"], key="other") is None
    assert up_to_date(engines["fp32"].with_name("nowhere.engine"), key=record.cache_key) is None


def test_a_damaged_engine_is_not_up_to_date(engines: dict[str, Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy.engine"
    content, record = read_engine(engines["fp32"])
    copy.write_bytes(content)
    copy.with_name("copy.engine.json").write_text(record.to_json(), encoding="utf-8")
    assert up_to_date(copy, key=record.cache_key) == record
    copy.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert up_to_date(copy, key=record.cache_key) is None


@pytest.mark.parametrize(
    "change",
    [
        {"settings": BuildSettings(backend="tensorrt")},
        {"settings": BuildSettings(tf32=True)},
        {"settings": BuildSettings(backend="tensorrt", serialize_plugin=True)},
        {"content_sha256": "b"},
        {"version": "11.4"},
        {"compute_capabilities": ("8.9",)},
        {"compute_capabilities": ()},
        {"shapes": ShapeRange((1, 32, 32, 3), (1, 64, 64, 3), (1, 64, 96, 3))},
        {"plugin_sha256": "c"},
    ],
)
def test_what_the_key_depends_on(change: dict[str, Any]) -> None:
    usual: dict[str, Any] = {
        "settings": BuildSettings(),
        "content_sha256": "a",
        "version": "11.1",
        "compute_capabilities": None,
        "shapes": ShapeRange((1, 32, 32, 3), (1, 64, 64, 3), (1, 64, 64, 3)),
        "plugin_sha256": "",
    }
    keys = {cache_key(**{key: value for key, value in one.items() if key != "settings"}, settings=one["settings"])
            for one in (usual, {**usual, **change})}  # fmt: skip
    assert len(keys) == 2


def test_the_key_does_not_depend_on_where_things_lie() -> None:
    shapes = ShapeRange((1, 32, 32, 3), (1, 64, 64, 3), (1, 64, 64, 3))
    keys = {
        cache_key(one, content_sha256="a", version="1", compute_capabilities=None, shapes=shapes, plugin_sha256="")
        for one in (
            BuildSettings(backend="tensorrt", timing_cache=Path("x"), force=True),
            BuildSettings(backend="tensorrt"),
        )
    }
    assert len(keys) == 1


def test_profiles(student: Path, candidates_file: Path) -> None:
    card, fixed = card_of(student), card_of(candidates_file)
    usual = ShapeRange((1, 32, 32, 3), (1, 160, 224, 3), (8, 224, 224, 3))
    assert profile_shapes(None, card=card, profile=BuildProfile()) == usual
    asked = BuildProfile(batch=(2, 2, 2), min_hw=(64, 64), opt_hw=(64, 96), max_hw=(96, 96))
    expected = ShapeRange((2, 64, 64, 3), (2, 64, 96, 3), (2, 96, 96, 3))
    assert profile_shapes(None, card=card, profile=asked) == expected
    assert profile_shapes((160, 192), card=fixed, profile=asked) == ShapeRange(*[(2, 160, 192, 3)] * 3)
    assert expected.holds((2, 96, 64, 3))
    assert not any(expected.holds(shape) for shape in ((1, 64, 64, 3), (2, 97, 64, 3), (2, 64, 63, 3), (2, 64, 64)))


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        (BuildProfile(batch=(2, 1, 8)), "must grow from min to opt to max"),
        (BuildProfile(min_hw=(192, 32)), "must grow from min to opt to max"),
        (BuildProfile(min_hw=(33, 32)), "must be multiples of 32"),
        (BuildProfile(batch=(0, 1, 8)), "batches 1 or more"),
    ],
)
def test_bad_profiles(student: Path, profile: BuildProfile, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        profile_shapes(None, card=card_of(student), profile=profile)


def test_bad_files(tmp_path: Path) -> None:
    output = tmp_path / "out.engine"
    with pytest.raises(EngineError, match=r"cannot open .*nowhere.onnx: there is no such file; make it"):
        build_engine(tmp_path / "nowhere.onnx", output=output)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\xff" * 100)
    with pytest.raises(EngineError, match=r"damaged.onnx is damaged or no ONNX file"):
        build_engine(damaged, output=output)
    foreign = tmp_path / "foreign.onnx"
    onnx.save(nms_model(settings=NmsSettings()), foreign)
    with pytest.raises(ModelCardError, match=r"foreign.onnx carries no model card.*Make it with"):
        build_engine(foreign, output=output)
    assert not output.exists()


def test_a_file_that_the_parser_refuses(student: Path, tmp_path: Path) -> None:
    model = onnx.load(student)
    del model.functions[:]  # no function, no plugin
    path = tmp_path / "bare.onnx"
    onnx.save(model, path)
    with pytest.raises(EngineError, match=r"tensorrt-rtx .* cannot parse .*bare.onnx: .*[Pp]lugin"):
        build_engine(path, output=tmp_path / "out.engine")


def test_precisions_that_a_file_does_not_have(student: Path, int8_file: Path) -> None:
    model, card = deployed_file.read(student)
    assert in_precision(model, card, None, model=student) == (model, card)
    assert in_precision(model, card, "fp32", model=student) == (model, card)
    for wanted in ("int8", "fp8"):
        with pytest.raises(
            ConfigError, match=rf"student.onnx is fp32.*ld-deploy quantize student.onnx --precision {wanted}"
        ):
            in_precision(model, card, wanted, model=student)  # type: ignore[arg-type]
    quantized, its_card = deployed_file.read(int8_file)
    for wanted in ("fp32", "fp16", "bf16", "fp8"):
        with pytest.raises(ConfigError, match=rf"is int8 by its model card, and --precision {wanted} was asked for"):
            in_precision(quantized, its_card, wanted, model=int8_file)  # type: ignore[arg-type]


def test_a_card_that_promises_too_much(student: Path, tmp_path: Path) -> None:
    model, card = deployed_file.read(student)
    path = tmp_path / "false.onnx"
    deployed_file.write(model, path, card=replace(card, precision="fp16"))
    with pytest.raises(EngineError, match=r"false.onnx is called fp16, and has not one layer and tensor in it"):
        build_engine(path, output=tmp_path / "out.engine")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plugin": True}, "tensorrt-rtx has no plugins"),
        ({"plugin_library": Path("x.so")}, "tensorrt-rtx has no plugins"),
        ({"serialize_plugin": True}, "tensorrt-rtx has no plugins"),
        ({"timing_cache": Path("x")}, "measures nothing"),
        ({"backend": "tensorrt", "compute_capabilities": ("8.6",)}, "for the GPU at hand alone"),
        ({"backend": "tensorrt", "plugin": False, "serialize_plugin": True}, "--no-plugin goes with neither"),
        ({"backend": "tensorrt", "plugin": False, "plugin_library": Path("x")}, "--no-plugin goes with neither"),
    ],
)
def test_settings_that_do_not_go_together(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BuildSettings(**fields)


def test_a_missing_library(student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendMissingError, match="tensorrt is not installed: pip install tensorrt"):
        build_engine(student, output=tmp_path / "out.engine", settings=BuildSettings(backend="tensorrt"))


# What is built for.

RTX = SimpleNamespace(
    __version__="1.7",
    ComputeCapability=SimpleNamespace(__members__=dict.fromkeys(("SM75", "SM89", "SM120", "CURRENT"))),
)


def test_gpus_that_are_built_for() -> None:
    assert targets_of(RTX, BuildSettings(), "fp32") == ("", None)
    assert targets_of(RTX, BuildSettings(), "bf16") == ("", ("8.9", "12.0"))
    assert targets_of(RTX, BuildSettings(compute_capabilities=("8.9",)), "fp8") == ("", ("8.9",))
    with pytest.raises(ConfigError, match=r"knows no compute capability 9.0, x; it knows 7.5, 8.9, 12.0"):
        targets_of(RTX, BuildSettings(compute_capabilities=("9.0", "8.9", "x")), "fp32")
    with pytest.raises(ConfigError, match=r"bf16 needs compute capability 8.0, 7.5 is to be built for"):
        targets_of(RTX, BuildSettings(compute_capabilities=("7.5", "8.9")), "bf16")


class Registry:
    """Of plugins: takes a library whose name holds `good`."""

    def __init__(self, *ops: str) -> None:
        self.ops = set(ops)

    def load_library(self, path: str) -> None:
        self.ops |= {"GFLDetect", "ClusterDIoUNMS"} if "good" in path or "trt11" in path else {"GFLDetect"}

    def get_creator(self, op: str, version: str, namespace: str) -> object | None:
        return object() if op in self.ops and (version, namespace) == ("1", "ld_deploy") else None


def with_registry(*ops: str) -> Any:
    registry = Registry(*ops)
    return SimpleNamespace(__version__="11.4.0.106", get_plugin_registry=lambda: registry)


def test_plugins_that_are_used(
    student: Path, candidates_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = card_of(student)
    monkeypatch.setattr("ld_runtime.__path__", [str(tmp_path)])
    usual = BuildSettings(backend="tensorrt")
    assert plugin_for(with_registry(), usual, card) is None  # it was not built
    with pytest.raises(BackendMissingError, match=r"plugin for tensorrt 11 was not built: make plugin"):
        plugin_for(with_registry(), replace(usual, plugin=True), card)
    (tmp_path / "lib").mkdir()
    found = tmp_path / "lib" / "libld_deploy_plugin_trt11.so"
    found.touch()
    library = with_registry()
    assert plugin_for(library, usual, card) == found
    assert library.get_plugin_registry().ops == {"GFLDetect", "ClusterDIoUNMS"}
    library = with_registry()
    assert plugin_for(library, replace(usual, plugin=False), card) is None
    assert not library.get_plugin_registry().ops
    own = tmp_path / "good.so"
    with pytest.raises(BackendMissingError, match=r"no plugin library .*good.so: make plugin"):
        plugin_for(with_registry(), replace(usual, plugin_library=own), card)
    own.touch()
    assert plugin_for(with_registry(), replace(usual, plugin_library=own), card) == own
    bad = tmp_path / "bad.so"
    bad.touch()
    with pytest.raises(BackendMissingError, match=r"bad.so registers no ClusterDIoUNMS with tensorrt 11.4"):
        plugin_for(with_registry(), replace(usual, plugin_library=bad), card)
    without = card_of(candidates_file)
    assert plugin_for(with_registry(), usual, without) is None
    with pytest.raises(ConfigError, match="ends in candidates"):
        plugin_for(with_registry(), replace(usual, plugin=True), without)


def test_a_plugin_would_end_the_process_of_tensorrt_rtx(student: Path) -> None:
    assert plugin_for(with_registry(), BuildSettings(), card_of(student)) is None
    with pytest.raises(EngineError, match=r"GFLDetect is registered with tensorrt-rtx, which would end the process"):
        plugin_for(with_registry("GFLDetect"), BuildSettings(), card_of(student))


class Kinds:
    PLUGIN_V3, RECURRENCE, CONVOLUTION = range(3)


class Network:
    def __init__(self, *kinds: int, inputs: int = 1) -> None:
        self.kinds, self.num_layers, self.inputs = kinds, len(kinds), inputs

    def get_layer(self, index: int) -> Any:
        return SimpleNamespace(type=self.kinds[index], num_inputs=self.inputs)


def test_which_form_of_the_nms_the_network_got(student: Path, candidates_file: Path) -> None:
    trt = SimpleNamespace(LayerType=Kinds)
    card, without = card_of(student), card_of(candidates_file)
    assert nms_form(trt, Network(Kinds.CONVOLUTION, Kinds.PLUGIN_V3, inputs=10), card=card) == ("plugin", "GFLDetect")
    assert nms_form(trt, Network(Kinds.PLUGIN_V3, inputs=3), card=card) == ("plugin", "ClusterDIoUNMS")
    assert nms_form(trt, Network(Kinds.CONVOLUTION, Kinds.RECURRENCE), card=card) == ("function", "")
    assert nms_form(trt, Network(Kinds.CONVOLUTION), card=without) == ("none", "")
    with pytest.raises(EngineError, match="holds no NMS, though the model card says so"):
        nms_form(trt, Network(Kinds.CONVOLUTION), card=card)


# TensorRT by the library of TensorRT-RTX, whose Python interface is the same, without a GPU to open what it built on.


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


def test_nothing_is_built_that_cannot_be_written(student: Path, tmp_path: Path) -> None:
    settings = BuildSettings(compute_capabilities=("8.6",))
    (tmp_path / "file").touch()
    for output, reason in ((tmp_path, "it is a folder"), (tmp_path / "file" / "a.engine", "exists|directory")):
        said: list[str] = []
        with pytest.raises(LdDeployError, match=f"cannot write .*: .*({reason})"):
            build_engine(student, output=output, settings=settings, progress=said.append)
        assert said == []


# Progress.


def test_phases_as_one_share() -> None:
    told: list[tuple[str, float]] = []
    meter = PhaseMeter(lambda name, share: told.append((name, share)))
    meter.start("build", None, 2)
    meter.start("time", "build", 4)
    meter.step("time", 0)  # a quarter of the first half
    meter.start("one", "time", 2)
    meter.step("one", 0)  # half of the second quarter
    meter.finish("one")
    meter.step("time", 1)
    meter.finish("time")
    meter.step("build", 0)
    meter.finish("build")
    assert [share for _, share in told] == [0, 0, 0.125, 0.125, 0.1875, 0.25, 0.25, 0.5, 0.5, 1.0]
    assert told[3][0] == "one"
    meter.step("unknown", 3)
    meter.finish("unknown")
    assert meter.share == 1.0


def test_control_c_stops_the_build_and_not_the_library() -> None:
    def tell(_name: str, share: float) -> None:
        if share > 0:
            raise KeyboardInterrupt

    base = type("IProgressMonitor", (), {})
    monitor = progress_monitor(SimpleNamespace(IProgressMonitor=base), PhaseMeter(tell))
    monitor.phase_start("build", None, 2)
    assert not monitor.interrupted
    assert monitor.step_complete("build", 0) is False
    assert monitor.interrupted
    monitor.phase_finish("build")
