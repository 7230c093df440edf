"""Shares of types, counted by hand, and what the inspector's words mean."""

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ld_runtime import precision_proof
from ld_runtime.errors import EngineError
from ld_runtime.precision_proof import PrecisionProof, TypeShares, proof_of


def tensor(name: str, words: str, key: str = "Format/Datatype") -> dict[str, Any]:
    return {"Name": name, "Location": "Device", "Dimensions": [1, 8], key: words}


def layer(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"Name": "x", "LayerType": "CaskConvolution", "Inputs": inputs, "Outputs": outputs}


def test_shares_by_hand() -> None:
    found = TypeShares.of(layers=["fp16", "fp16", "fp32", "fp16"], tensors=["fp32", "fp16"])
    assert found.layers == {"fp16": 0.75, "fp32": 0.25}
    assert found.tensors == {"fp32": 0.5, "fp16": 0.5}
    assert (found.layer_count, found.tensor_count) == (4, 2)
    assert str(found) == "layers 75% fp16, 25% fp32; tensors 50% fp32, 50% fp16"
    assert str(TypeShares.of(layers=[], tensors=[])) == "layers none; tensors none"


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("Row major linear FP32", "fp32"),
        ("Float", "fp32"),
        ("Half", "fp16"),
        ("Channel major FP16 format where channel % 8 == 0", "fp16"),
        ("Row major linear BFloat16 format", "bf16"),
        ("BFloat16", "bf16"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Channel major INT8 format where channel % 16 == 0", "int8"),
        ("Row major linear FP8 format", "fp8"),
    ],
)
def test_the_inspectors_words(words: str, precision: str) -> None:
    for key in ("Format/Datatype", "Datatype"):
        text = json.dumps({"Layers": [layer([tensor("a", words, key)], [])]})
        assert TypeShares.from_inspector(text).tensors == {precision: 1}


def test_an_engine_by_hand() -> None:
    """The image becomes float, is quantized, goes through an int8 convolution to half, and is counted."""
    layers = [
        layer([tensor("images", "Row major linear UInt8 format")], [tensor("a", "Float")]),  # of its output: float
        layer([tensor("a", "Float")], [tensor("b", "Int8")]),
        layer([tensor("b", "Int8"), tensor("c", "Half")], [tensor("d", "Half")]),  # the narrowest of its inputs: int8
        layer([tensor("d", "Half")], [tensor("e", "Int32")]),
        layer([tensor("e", "Int32")], [tensor("f", "Int64")]),  # not counted
    ]
    for content in ({"Layers": layers, "Bindings": ["images"]}, layers):
        found = TypeShares.from_inspector(json.dumps(content))
        assert found.layers == {"fp32": 0.5, "int8": 0.25, "fp16": 0.25}
        assert found.tensors == {"fp32": 0.25, "int8": 0.25, "fp16": 0.5}


@pytest.mark.parametrize("text", ["{", "{}", '{"Layers": ["Conv_1", "Conv_2"]}', "[1]"])
def test_answers_that_cannot_be_read(text: str) -> None:
    with pytest.raises(EngineError, match="inspector's answer cannot be read"):
        TypeShares.from_inspector(text)


def test_an_engine_that_tells_no_types() -> None:
    with pytest.raises(EngineError, match="not built with detailed verbosity"):
        TypeShares.from_inspector('{"Layers": []}')


def test_a_promise_that_is_not_kept() -> None:
    found = TypeShares.of(layers=["fp32"] * 3, tensors=["fp16", "fp32"])
    found.require("fp32", what="a.onnx")
    with pytest.raises(EngineError, match=r"a.engine is called fp16.*layers 100% fp32.*convert --precision fp16"):
        found.require("fp16", what="a.engine")  # a tensor alone is none: nothing is computed in it
    without_weights = TypeShares.of(layers=[], tensors=["fp32"])
    without_weights.require("fp32", what="a.onnx")
    with pytest.raises(EngineError, match="called fp16"):
        without_weights.require("fp16", what="a.onnx")
    with pytest.raises(EngineError, match=r"ld-deploy quantize --precision int8"):
        found.require("int8", what="a.engine")


def test_a_proof_in_words_and_json() -> None:
    shares = TypeShares.of(layers=["fp16"], tensors=["fp16"])
    proof = PrecisionProof(graph=shares, remark="no GPU")
    assert PrecisionProof.from_dict(json.loads(json.dumps(asdict(proof)))) == proof
    assert str(proof) == "graph: layers 100% fp16; tensors 100% fp16; no GPU"
    assert str(PrecisionProof()) == "not looked at"


def test_where_a_proof_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = PrecisionProof(graph=TypeShares.of(layers=["fp16"], tensors=["fp16"]))
    entries: list[Any] = []
    monkeypatch.setattr(
        precision_proof, "entry_points", lambda *, group: entries if group == "ld_deploy.precision_proofs" else []
    )
    plain: Any = SimpleNamespace(card=SimpleNamespace(precision="int8"))
    assert proof_of(plain, Path("a.onnx")).remark.startswith("int8 by the model card alone; pip install")

    def missing() -> None:
        raise ImportError("onnx")

    entries.append(SimpleNamespace(load=missing))
    assert proof_of(plain, Path("a.onnx")).graph is None
    entries.append(SimpleNamespace(load=lambda: lambda path: proof if path == Path("a.onnx") else None))
    assert proof_of(plain, Path("a.onnx")) == proof
    own = PrecisionProof(remark="mine")
    knowing: Any = SimpleNamespace(precision_proof=lambda: own)
    assert proof_of(knowing, Path("a.engine")) == own


def test_a_proof_is_as_good_as_each_of_its_parts() -> None:
    half, single = (TypeShares.of(layers=[one], tensors=[one]) for one in ("fp16", "fp32"))
    PrecisionProof(graph=half, engine=half).require("fp16", what="x")
    PrecisionProof().require("fp16", what="x")
    for bad in (PrecisionProof(graph=half, engine=single), PrecisionProof(graph=single, engine=half)):
        with pytest.raises(EngineError, match="x is called fp16"):
            bad.require("fp16", what="x")
