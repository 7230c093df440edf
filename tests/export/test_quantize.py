from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from ld_export import deployed_file
from ld_export.quantize import quantize
from ld_export.quantize_calibration import canvas_of, open_session
from ld_export.quantize_error import FloatReference, MapError
from ld_export.quantize_images import choose_images, hold_out, hold_out_of, labelled_of_coco
from ld_export.quantize_modules import ModuleScales, quantize_by_modules, scales_by_module, scales_of_modules
from ld_export.quantize_plan import find_modules, make_plan
from ld_export.quantize_report import QuantizationReport, Trial, best_of, report_path
from ld_export.quantize_sensitivity import LayerSensitivity, choose_float, multiply_adds
from ld_runtime.detector import Detector
from ld_runtime.errors import ConfigError, DataError, InputError, LdDeployError
from ld_runtime.paired_ap import MatchedImages
from tests.export.quantize_networks import residual

CLASSES = ("ant", "bee", "cat")


@pytest.fixture(scope="module")
def folder(student: Path, data_root: Path) -> Path:
    assert student.is_file()
    return data_root


@pytest.fixture(scope="module")
def done(student: Path, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, QuantizationReport]:
    output = tmp_path_factory.mktemp("quantized") / "student.int8.onnx"
    images = sorted(folder.glob("?.png"))
    calibration, labelled = hold_out(
        images, labelled_of_coco(folder / "truth.json", images=images, class_names=CLASSES)
    )
    report = quantize(
        student,
        output=output,
        calibration=calibration,
        labelled=labelled,
        methods=("max", "mse"),
        float_budget=0.3,
        threads=1,
    )
    return output, report


def test_written_file(done: tuple[Path, QuantizationReport], student: Path, folder: Path) -> None:
    output, report = done
    model, card = deployed_file.read(output)
    onnx.checker.check_model(model, full_check=True)
    _, float_card = deployed_file.read(student)
    assert card == replace(float_card, precision="int8")
    assert [node.op_type for node in model.graph.node][-1] == "GFLDetect"
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    floats = [node for node in convs if not node.input[1].endswith(".dequantized")]
    assert len(report.modules) + len(report.kept_float) == len({node.input[1] for node in convs})
    assert {node.input[1] for node in floats} == {f"model.{name}.weight" for name in report.kept_float}
    one, other = Detector(student, threads=1), Detector(output, threads=1)
    found, wanted = other(folder / "3.png"), one(folder / "3.png")
    assert abs(len(found) - len(wanted)) <= 3
    assert output.stat().st_size < 0.5 * student.stat().st_size


def test_report(done: tuple[Path, QuantizationReport]) -> None:
    output, report = done
    content = json.loads(report_path(output).read_text(encoding="utf-8"))
    assert content["precision"] == "int8"
    assert [one["method"] for one in content["trials"]] == ["max", "mse"]
    assert content["method"] == report.method == best_of(report.trials).method
    assert len(content["sensitivity"]) == len(content["modules"]) + len(content["kept_float"])
    assert sum(one["error_share"] for one in content["sensitivity"]) == pytest.approx(1)
    assert sum(one["multiply_add_share"] for one in content["sensitivity"]) == pytest.approx(1)
    kept = [one for one in content["sensitivity"] if one["name"] in content["kept_float"]]
    assert 0 < sum(one["multiply_add_share"] for one in kept) <= 0.3
    assert (content["calibration_images"], content["labelled_images"]) == (5, 1)
    assert 0 < content["error"]["edge_px"] < 20
    assert content["float_ap"] is not None
    assert ModuleScales(**content["modules"]["backbone.layer1.0.conv1"]).input_unsigned


def test_command(student: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import typer

    from ld_export.commands.quantize import quantize as command

    app = typer.Typer()
    app.command()(command)
    arguments = ["--images", str(folder), "--method", "max", "--keep-float", "backbone.conv1", "--threads", "1"]
    output = tmp_path / "made.onnx"
    app([str(student), *arguments, "-o", str(output)], standalone_mode=False)
    shown = capsys.readouterr().out
    assert "max (chosen)" in shown
    content = json.loads(report_path(output).read_text(encoding="utf-8"))
    assert (content["kept_float"], content["sensitivity"], content["ap"]) == (["backbone.conv1"], [], None)
    with pytest.raises(ConfigError, match="is a file of precision int8, and quantization starts from fp32"):
        app([str(output), *arguments], standalone_mode=False)
    with pytest.raises(ConfigError, match=r"no convolution is called head; there are: backbone.conv1, "):
        app([str(student), *arguments[:4], "--keep-float", "head", "-o", str(output)], standalone_mode=False)


def test_float8_file(student: Path, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "student.fp8.onnx"
    images = sorted(folder.glob("?.png"))[:2]
    report = quantize(
        student,
        output=output,
        calibration=images,
        compared=images,
        kind="fp8",
        methods=("max",),
        keep_float=(),
        threads=1,
    )
    model, card = deployed_file.read(output)
    assert card.precision == "fp8"
    assert next(one.version for one in model.opset_import if not one.domain) == 19
    # ONNX Runtime's own rewriting would drop the ReLUs.
    exact = ReferenceEvaluator(deployed_file.split(model)[0])
    images_of = canvas_of(images[0], card=card)
    wanted = exact.run(None, {"images": images_of})
    session = open_session(deployed_file.split(model)[0], threads=1)
    for one, other in zip(session.run(None, {"images": images_of}), wanted, strict=True):
        assert np.abs(one - other).mean() < 0.1 * np.abs(other).mean()
    assert report.error.edge_px > 0
    assert len(Detector(output, threads=1)(folder / "3.png")) > 0


def test_what_cannot_be_is_known_before_the_work(
    student: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def calibrated(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ld_export.quantize.collect", calibrated)
    options: dict[str, Any] = {"calibration": [folder / "0.png"], "compared": [folder / "0.png"]}
    with pytest.raises(ConfigError, match="is the float32 file itself"):
        quantize(student, output=student.parent / "." / student.name, **options)
    with pytest.raises(ConfigError, match="method mse is not for fp8"):
        quantize(student, output=tmp_path / "x.onnx", kind="fp8", methods=("max", "mse"), **options)
    with pytest.raises(ConfigError, match="no convolution is called head"):
        quantize(student, output=tmp_path / "x.onnx", keep_float=("head",), **options)
    with pytest.raises(LdDeployError, match="cannot write"):
        quantize(student, output=tmp_path, **options)


@pytest.mark.parametrize("budget", [-0.1, 1.1])
def test_impossible_budgets(student: Path, folder: Path, tmp_path: Path, budget: float) -> None:
    with pytest.raises(ConfigError, match="a share from 0 to 1"):
        quantize(student, output=tmp_path / "x.onnx", calibration=[folder / "0.png"], float_budget=budget)


def layer(name: str, error: float, arithmetic: float) -> LayerSensitivity:
    return LayerSensitivity(name, MapError(0.0, 0.0), error, arithmetic)


def test_which_layers_stay_float() -> None:
    layers = [layer("a", 0.5, 0.06), layer("b", 0.2, 0.02), layer("c", 0.1, 0.03), layer("d", 0.07, 0.0)]
    assert choose_float(layers, budget=0.11) == ("b", "a", "c")  # most error for the arithmetic first
    assert choose_float(layers, budget=0.08) == ("b", "a")
    assert choose_float(layers, budget=0.05) == ("b", "c")  # a does not fit
    assert choose_float(layers, budget=0.0) == ()
    assert choose_float([layer("e", 0.08, 0.0)], budget=0.0) == ("e",)  # exactly what is worth it, and free


def test_multiply_adds_by_hand() -> None:
    model = residual()
    model.graph.input[0].name = "images"
    for node in model.graph.node:
        node.input[:] = ["images" if name == "x" else name for name in node.input]
    found = multiply_adds(model, canvas=np.ones((1, 2, 4, 4), np.float32))  # type: ignore[arg-type]
    # 1 x 1, 2 -> 2: four per location; 16 locations, 4 after the pooling; the head on both
    assert found == {
        "stem": 64,
        "block.conv": 16,
        "lateral": 16,
        "other": 64,
        "out": 64,
        "head": 80,
    }


def test_best_method() -> None:
    def trial(name: Any, ap: float | None, edge: float, score: float = 1.0) -> Trial:
        return Trial(name, MapError(edge, score), ap)

    assert best_of([trial("max", 0.5, 1.0), trial("mse", 0.53, 9.0)]).method == "mse"
    # Within two thousandths the error decides, beyond them it does not.
    assert best_of([trial("max", 0.498, 1.0), trial("mse", 0.5, 9.0)]).method == "max"
    assert best_of([trial("max", 0.4979, 1.0), trial("mse", 0.5, 9.0)]).method == "mse"
    assert best_of([trial("max", None, 2.0, 1.0), trial("mse", None, 1.0, 1.5)]).method == "mse"
    assert best_of([trial("max", None, 2.0, 1.0), trial("mse", None, 1.0, 4.0)]).method == "max"


def test_map_error_by_hand(student: Path, folder: Path) -> None:
    model, card = deployed_file.read(student)
    trunk, _ = deployed_file.split(model)
    reference = FloatReference(trunk, paths=[folder / "0.png"], card=card, threads=1)
    assert reference.error(trunk) == MapError(0.0, 0.0)
    shifted = onnx.ModelProto()
    shifted.CopyFrom(trunk)
    (bias,) = [one for one in shifted.graph.initializer if one.name.endswith("gfl_cls.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1), bias.name))
    found = reference.error(shifted)
    assert found.edge_px == 0.0
    assert 0.02 < found.score < 0.25  # a sigmoid's slope is at most a quarter
    with pytest.raises(DataError, match="no image to compare"):
        FloatReference(trunk, paths=[], card=card)


def test_scales_by_module_and_back(student: Path) -> None:
    trunk, _ = deployed_file.split(deployed_file.read(student)[0])
    plan = make_plan(trunk.graph, keep_float=("backbone.conv1",))
    scales = {name: 2.0**-index for index, name in enumerate(plan.groups)}
    modules = scales_by_module(plan, scales)
    assert scales_of_modules(plan, modules) == scales
    made = quantize_by_modules(trunk, modules=modules, kind="int8")
    kept = [node.input[1] for node in made.graph.node if node.op_type == "Conv" and "dequantized" not in node.input[1]]
    assert kept == ["model.backbone.conv1.weight"]
    assert set(modules) == set(find_modules(trunk.graph)) - {"backbone.conv1"}
    with pytest.raises(ConfigError, match="the network has no convolution elsewhere"):
        quantize_by_modules(trunk, modules={**modules, "elsewhere": next(iter(modules.values()))}, kind="int8")
    name = "bbox_head.gfl_cls"
    wrong = {**modules, name: replace(modules[name], input_unsigned=False)}
    with pytest.raises(ConfigError, match=r"the signs of bbox_head.gfl_cls are not those of its scales"):
        scales_of_modules(plan, wrong)
    del modules[name]
    with pytest.raises(ConfigError, match=r"there are no scales of bbox_head.gfl_cls"):
        scales_of_modules(plan, modules)


def test_held_out_images(folder: Path, student: Path) -> None:
    images = sorted(folder.glob("?.png"))
    labelled = labelled_of_coco(folder / "truth.json", images=images, class_names=CLASSES)
    assert (labelled.image_ids, labelled.category_ids) == (tuple(range(6)), (1, 2, 3))
    rest, held = hold_out(images, labelled)
    assert (held.paths, held.image_ids) == ((images[3],), (3,))
    assert rest == (*images[:3], *images[4:])
    assert {one["image_id"] for one in held.document["annotations"]} <= {3}
    free, same = hold_out(images, labelled.subset([0, 2]))
    assert (free, same.image_ids) == ((images[1], *images[3:]), (0, 2))
    with pytest.raises(DataError, match="3 labelled images are too few to hold one out"):
        hold_out(images[:3], labelled.subset([0, 1, 2]))
    assert MatchedImages(held.document, []).images == 1
    # One image without labels is too few to calibrate on where others are at hand: three of four labelled ones join.
    five = labelled.subset([0, 1, 2, 3, 5])
    free, held = hold_out(images, five)
    assert (free, held.image_ids) == ((images[4], *images[:3], images[5]), (3,))
    # Those that are not in the folder are for the AP alone.
    assert hold_out(images[4:5], five) == ((images[4],), five)
    free, held = hold_out(images[:5], five)
    assert (free, held.image_ids) == ((images[4], *images[:3]), (3, 5))
    assert hold_out(images[2:5], five)[0] == (images[4],)  # two labelled ones in it, none of four to hold out
    assert hold_out_of(images) == ((*images[:3], *images[4:]), (images[3],))
    assert hold_out_of(images[:1]) == ((images[0],), (images[0],))


def test_images_by_command_line(folder: Path, student: Path, config_file: Path, tmp_path: Path) -> None:
    card = deployed_file.read(student)[1]

    def choose(**options: Any) -> Any:
        nothing: dict[str, Any] = {"images": None, "annotations": None, "config": None, "split": "val"}
        return choose_images(**{**nothing, **options}, card=card)

    chosen = choose(images=str(folder), annotations=folder / "truth.json")
    assert (len(chosen.calibration), len(chosen.compared), chosen.labelled.image_ids) == (5, 1, (3,))
    chosen = choose(images=str(folder), config=str(config_file))
    assert (len(chosen.calibration), chosen.labelled.image_ids) == (5, (3,))
    assert choose(images=str(folder)).labelled is None
    with pytest.raises(ConfigError, match="name images to calibrate on"):
        choose()
    with pytest.raises(ConfigError, match="both name ground truth"):
        choose(annotations=folder / "truth.json", config=str(config_file))
    with pytest.raises(InputError, match="no image found"):
        choose(images=str(tmp_path))


def test_annotations_of_something_else(folder: Path, student: Path, tmp_path: Path) -> None:
    images = sorted(folder.glob("?.png"))
    with pytest.raises(DataError, match="has no category dog; it has ant, bee, cat"):
        labelled_of_coco(folder / "truth.json", images=images, class_names=("ant", "dog"))
    with pytest.raises(DataError, match="none of the 1 images is in"):
        labelled_of_coco(folder / "truth.json", images=[tmp_path / "other.png"], class_names=CLASSES)
    with pytest.raises(DataError, match=r"by their name, and several are called 0.png"):
        labelled_of_coco(folder / "truth.json", images=[*images, tmp_path / "0.png"], class_names=CLASSES)
    document = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    document["images"].append({**document["images"][1], "id": 99, "file_name": "other/1.png"})
    (tmp_path / "twice.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(DataError, match=r"several are called 1.png"):
        labelled_of_coco(tmp_path / "twice.json", images=images, class_names=CLASSES)
    assert labelled_of_coco(tmp_path / "twice.json", images=images[2:], class_names=CLASSES).paths == tuple(images[2:])
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"broken.json is no COCO annotation file"):
        labelled_of_coco(tmp_path / "broken.json", images=images, class_names=CLASSES)


def test_the_command_asks_for_its_output_first(student: Path, tmp_path: Path) -> None:
    from ld_export.commands.quantize import quantize as command
    from ld_runtime.errors import LdDeployError

    with pytest.raises(LdDeployError, match=r"cannot write .*: it is a folder"):
        command(student, images="no such folder", output=tmp_path)
