"""Engines on a file that ends in GFLDetect: the native tail gives what the functions in the file give."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ld_export.gfl_function import gfl_tail
from ld_runtime import Detector, native
from ld_runtime.engines import EngineOutput, open_engine
from ld_runtime.errors import BackendMissingError, ConfigError, EngineError, InputError
from ld_runtime.host_tail import padded
from ld_runtime.model_card import METADATA_KEY, CandidateRule, ModelCard, NmsSettings
from ld_runtime.precision_proof import proof_of

STRIDES = (8, 16)
BINS = 5
NMS = NmsSettings(score_threshold=0.3, max_detections=20)


def detector_file(path: Path, card: ModelCard) -> Path:
    """A file whose classes are the mean colours of cells of 8 and of 16 pixels, and whose boxes are 3 cells wide."""
    rng = np.random.default_rng(3)
    arrays = {"mean": np.array(100, np.float32), "scale": np.array(0.05, np.float32)}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
    ]
    for level, stride in enumerate(STRIDES):
        arrays[f"weight_{level}"] = rng.normal(0, 0.5, (4 * BINS, 3, 1, 1)).astype(np.float32)
        arrays[f"bias_{level}"] = np.tile(np.array([0, 6, 0, 0, 0], np.float32), 4)
        window = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        logits = f"class_logits_{level}"
        nodes += [
            helper.make_node("AveragePool", ["scaled"], [logits], **window),
            helper.make_node("Conv", [logits, f"weight_{level}", f"bias_{level}"], [f"edge_logits_{level}"]),
        ]
    tail = gfl_tail(card=card, strides=STRIDES, batch="N")
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", "H", "W", 3])
    initializers = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph([*nodes, *tail.nodes], "cells", [images], list(tail.outputs), initializers)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ld_deploy", 1)]
    model = helper.make_model(graph, functions=list(tail.functions), opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: card.to_json()})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


@pytest.fixture
def gfl_file(tmp_path: Path, card: ModelCard) -> Path:
    rule = CandidateRule(per_level_top_k=200, pre_nms_top_k=100)
    return detector_file(tmp_path / "cells.onnx", dataclasses.replace(card, nms=NMS, candidates=rule))


@pytest.fixture
def images() -> NDArray[np.uint8]:
    rng = np.random.default_rng(4)
    coarse = rng.integers(20, 236, (3, 12, 20, 3), dtype=np.uint8)
    # Noise, so that no two cells have the same mean: what comes first among equals is not promised by every engine.
    return coarse.repeat(8, axis=1).repeat(8, axis=2) + rng.integers(0, 20, (3, 96, 160, 3), dtype=np.uint8)


def assert_same(one: EngineOutput, other: EngineOutput, *, atol: float = 1e-3) -> None:
    np.testing.assert_array_equal(one.num_detections, other.num_detections)
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    np.testing.assert_allclose(one.boxes, other.boxes, atol=atol)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_native_tail_gives_what_the_file_gives(gfl_file: Path, images: NDArray[np.uint8], backend: str) -> None:
    graph = open_engine(gfl_file, nms="graph", threads=1)
    engine = open_engine(gfl_file, backend=backend, threads=1)  # type: ignore[arg-type]
    assert (graph.facts.nms, engine.facts.nms) == ("graph", "native")
    assert (engine.facts.backend, engine.facts.precision, engine.facts.device) == (backend, "fp32", "cpu")
    expected = graph.run(images)
    assert expected.num_detections.min() > 3
    assert expected.num_detections.max() == NMS.max_detections
    assert_same(engine.run(images), expected)
    black = np.zeros_like(images[:1])
    assert engine.run(black).num_detections.tolist() == [0]
    assert engine.run(black).labels.tolist() == [[-1] * NMS.max_detections]


def test_openvino_expands_the_functions(gfl_file: Path, images: NDArray[np.uint8]) -> None:
    engine = open_engine(gfl_file, backend="openvino", nms="graph", threads=1)
    assert engine.facts.nms == "graph"
    found = engine.run(images)
    engine.run(images[::-1].copy())  # whose outputs lie where those of the first run lay
    assert_same(found, open_engine(gfl_file, nms="graph").run(images))
    (request,) = engine._requests.values()  # type: ignore[attr-defined]
    kinds = {
        one.get_rt_info()["layerType"].astype(str) for one in request.get_compiled_model().get_runtime_model().get_ops()
    }
    assert "Subgraph" not in kinds  # whose kernels run out of AVX2's registers
    assert request.get_compiled_model().get_property("INFERENCE_NUM_THREADS") == 1


def test_openvino_takes_many_shapes(gfl_file: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    from ld_runtime import openvino_engine

    monkeypatch.setattr(openvino_engine, "OWN_SHAPES", 2)
    engine = open_engine(gfl_file, backend="openvino", threads=1)
    other = open_engine(gfl_file, threads=1)
    for height, width in ((96, 160), (64, 64), (32, 96), (96, 96), (96, 160)):  # two for themselves, then any
        batch = np.ascontiguousarray(images[:, :height, :width])
        assert_same(engine.run(batch), other.run(batch))
    assert set(engine._requests) == {(3, 96, 160, 3), (3, 64, 64, 3), ()}  # type: ignore[attr-defined]


def test_openvino_in_bf16(gfl_file: Path, images: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    capabilities = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if "BF16" in capabilities:
        engine = open_engine(gfl_file, backend="openvino", precision="bf16", threads=1)
        assert engine.facts.precision == "bf16"
        found, expected = engine.run(images), open_engine(gfl_file).run(images)
        np.testing.assert_allclose(found.scores, expected.scores, atol=0.02)
        difference = np.abs(found.boxes - expected.boxes)
        assert 0 < np.median(difference) < 0.5  # pixels: coarser, as it was asked for
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32", "INT8"])
    with pytest.raises(BackendMissingError, match="no bfloat16"):
        open_engine(gfl_file, backend="openvino", precision="bf16")


def test_without_the_library(gfl_file: Path, monkeypatch: pytest.MonkeyPatch, images: NDArray[np.uint8]) -> None:
    def missing() -> None:
        raise BackendMissingError("the host library was not built")

    monkeypatch.setattr(native, "load_library", missing)
    assert open_engine(gfl_file).facts.nms == "graph"
    with pytest.raises(BackendMissingError, match="not built"):
        open_engine(gfl_file, nms="native")
    assert open_engine(gfl_file, backend="openvino").run(images).num_detections.min() > 3
    with pytest.raises(ConfigError, match="bf16 would reach the decode"):
        open_engine(gfl_file, backend="openvino", precision="bf16")


def test_a_file_that_ends_otherwise(model_file: object, gfl_file: Path) -> None:
    path = model_file()  # type: ignore[operator]
    assert open_engine(path).facts.nms == "graph"
    with pytest.raises(ConfigError, match="does not end in our NMS node"):
        open_engine(path, nms="native")
    with pytest.raises(ConfigError, match="threads must be 1 or more"):
        open_engine(gfl_file, backend="openvino", threads=0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("iou_threshold", 0.5, r"iou_threshold 0\.5, and its model card says 0\.6"),
        ("pre_nms_top_k", 99, "pre_nms_top_k 99, and its model card says 100"),
        ("max_detections", None, "max_detections None, and its model card says 20"),
    ],
)
def test_a_node_that_was_changed(gfl_file: Path, name: str, value: float | None, said: str) -> None:
    model = onnx.load(gfl_file)
    node = model.graph.node[-1]
    kept = [one for one in node.attribute if one.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, *([] if value is None else [helper.make_attribute(name, value)])])
    onnx.save(model, gfl_file)
    with pytest.raises(EngineError, match=f"GFLDetect has {said}.*export the model again"):
        open_engine(gfl_file)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_bad_canvases(gfl_file: Path, backend: str) -> None:
    engine = open_engine(gfl_file, backend=backend)  # type: ignore[arg-type]
    for bad in (
        np.zeros((96, 160, 3), np.uint8),
        np.zeros((1, 96, 160, 3), np.float32),
        np.zeros((0, 9, 9, 3), np.uint8),
    ):
        with pytest.raises(InputError, match="need canvases uint8"):
            engine.run(bad)  # type: ignore[arg-type]


def test_a_file_that_openvino_cannot_read(gfl_file: Path, tmp_path: Path) -> None:
    model = onnx.load(gfl_file)
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(
        EngineError, match=r"odd\.onnx is damaged or no ONNX file that this openvino 2.*export it again"
    ):
        open_engine(tmp_path / "odd.onnx", backend="openvino")


def test_a_detector_names_its_engine(gfl_file: Path) -> None:
    detector = Detector(gfl_file, backend="openvino")
    assert detector.engine.facts.backend == "openvino"
    image = np.full((96, 160, 3), 255, np.uint8)
    found = detector(image)
    assert len(found) > 0
    reference = Detector(gfl_file, nms="graph")(image)
    np.testing.assert_allclose(found.boxes, reference.boxes, atol=1e-3)


def test_padding_by_hand() -> None:
    one = (np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([7]))
    none = (np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    found = padded([one, none], max_detections=2)
    assert found.num_detections.tolist() == [1, 0]
    assert found.boxes.tolist() == [[[1, 2, 3, 4], [0, 0, 0, 0]], [[0, 0, 0, 0]] * 2]
    assert (found.scores.tolist(), found.labels.tolist()) == ([[0.5, 0], [0, 0]], [[7, -1], [-1, -1]])


def test_openvino_says_what_it_computes_in(gfl_file: Path, images: NDArray[np.uint8]) -> None:
    import openvino

    engine = open_engine(gfl_file, backend="openvino", threads=1)
    proof = proof_of(engine, gfl_file)  # before the first run, too
    assert proof.engine is not None
    assert proof.engine.layers == {"fp32": 1.0}
    assert proof.engine.layer_count == len(STRIDES)  # its convolutions
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        engine = open_engine(gfl_file, backend="openvino", precision="bf16", threads=1)
        engine.run(images)
        proof = proof_of(engine, gfl_file)
        assert proof.engine is not None
        assert proof.engine.layers == {"bf16": 1.0}
        proof.require("bf16", what="the engine")
        with pytest.raises(EngineError, match="has not one layer and tensor in it"):
            proof.require("int8", what="the engine")
