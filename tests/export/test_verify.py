from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper

from ld_export.ground_truth import load_truth
from ld_export.pytorch_reference import pipeline_of
from ld_export.verify import common_card, verify
from ld_runtime.detection_record import DetectionRecord
from ld_runtime.errors import ConfigError, DataError, LdDeployError, ParityError
from ld_runtime.model_card import METADATA_KEY, ModelCard, Preprocess


@pytest.fixture(scope="module")
def small(config_file: Path) -> Any:
    from ld_deploy import compat

    compat.install()
    from ld_deploy.config import load_config

    return load_config(config_file)


def run_command(*arguments: object) -> None:
    import typer

    from ld_export.commands.verify import verify as command

    app = typer.Typer()
    app.command()(command)
    app([str(one) for one in arguments], standalone_mode=False)


def test_the_file_agrees_with_pytorch(
    config_file: Path, checkpoint: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "parity.json"
    run_command(config_file, checkpoint, student, "-o", output)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["passed"] is True
    assert found["images"] == 6
    assert found["sizes_no_multiple_of_divisor"] == 5
    assert found["models"]["student.onnx"]["exported_from_this_checkpoint"] is True
    agreement = found["agreement"]["student.onnx"]
    assert agreement["matched_share"] == 1
    assert agreement["reference_boxes"] > 60
    assert agreement["max_box_difference_px"] < 0.01
    assert found["ap_difference"] == {"student.onnx": pytest.approx(0, abs=1e-6)}
    ap = found["ap"]["PyTorch"]
    assert 0.2 < ap["ap"] < ap["ap50"]  # the truth is made of shifted detections
    assert set(ap["per_class_ap"]) == {"ant", "bee", "cat"}
    (beside,) = found["beside"].values()
    assert beside["ap"] != ap["ap"]  # plain NMS, other padding
    assert "cores" in found["machine"]
    assert (found["kind"], found["schema_version"]) == ("ld_deploy.parity", 1)
    record = DetectionRecord.read(tmp_path / "parity.detections.json.gz")
    assert (record.reference, list(record.detections)) == ("PyTorch", ["PyTorch", "student.onnx", *found["beside"]])
    assert [path.name for path in record.paths] == [one["file_name"] for one in record.document["images"]]
    assert all(path.is_file() and path.is_absolute() for path in record.paths)
    assert sum(map(len, record.detections["student.onnx"])) == agreement["candidate_boxes"]
    shown = capsys.readouterr().out
    assert "passed" in shown
    assert "6 images of test" in shown


def test_a_file_with_a_fixed_canvas_agrees(config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    from ld_export.from_checkpoint import export_checkpoint

    path = tmp_path / "fixed.onnx"
    # The config keeps the ratio, the file letterboxes: PyTorch has to follow the file, with its threshold and limit.
    limits = {"score_threshold": 0.2, "max_detections": 12}
    export_checkpoint(config_file, checkpoint=checkpoint, output=path, input_hw=(160, 192), **limits)  # type: ignore[arg-type]
    result = verify(config_file, checkpoint=checkpoint, models=[path], with_mmdet=False)
    agreement = result.report.agreement["fixed.onnx"]
    assert result.report.passed
    assert 20 < agreement.reference_boxes <= 6 * 12
    assert agreement.matched_share == 1


def spoiled(student: Path, target: Path) -> Path:
    """The same file with another mean: 40 grey levels more."""
    model = onnx.load(student)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.size == 3 and abs(float(values.ravel()[0]) - 123.675) < 1e-3:
            tensor.CopyFrom(numpy_helper.from_array(values + values.dtype.type(40), tensor.name))
            onnx.save(model, target)
            return target
    raise AssertionError("the mean is not in the file")


def test_a_file_that_differs_fails(config_file: Path, checkpoint: Path, student: Path, tmp_path: Path) -> None:
    output = tmp_path / "parity.json"
    model = spoiled(student, tmp_path / "spoiled.onnx")
    with pytest.raises(ParityError, match=r"spoiled.onnx: .* of the boxes match, wanted are 99.9"):
        run_command(config_file, checkpoint, model, "--no-mmdet", "--limit", "3", "-o", output)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["passed"] is False
    assert found["images"] == 3
    assert found["beside"] == {}
    assert found["agreement"]["spoiled.onnx"]["unmatched"][0]["cause"]
    low, high = found["ap_interval"]["spoiled.onnx"]
    assert low < found["ap_difference"]["spoiled.onnx"] < high


def test_json_of_a_failed_check(
    config_file: Path, checkpoint: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = spoiled(student, tmp_path / "spoiled.onnx")
    with pytest.raises(ParityError):
        run_command(
            config_file,
            checkpoint,
            model,
            "--no-mmdet",
            "--limit",
            "2",
            "--explain",
            "--json",
            "-o",
            tmp_path / "a.json",
        )
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert shown["passed"] is False
    assert shown["explanation"]["spoiled.onnx"]["owner"] == "trunk"


def test_it_asks_for_its_output_first(config_file: Path, checkpoint: Path, student: Path, tmp_path: Path) -> None:
    with pytest.raises(LdDeployError, match=r"cannot write .*: it is a folder"):
        run_command("no config", checkpoint, student, "-o", tmp_path)


def test_files_of_one_name_are_told_apart(
    config_file: Path, checkpoint: Path, student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from ld_export.commands.precision_report import precision_report

    (tmp_path / "b").mkdir()
    other = spoiled(student, tmp_path / "b" / student.name)
    output = tmp_path / "precisions.json"
    with pytest.raises(LdDeployError, match=r"cannot write .*: it is a folder"):
        precision_report("no config", [str(student)], output=tmp_path)
    precision_report(str(config_file), [str(student), str(other)], output=output, as_json=True)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(capsys.readouterr().out) == found
    assert [one["name"] for one in found["files"][:2]] == [str(student), str(other)]
    assert len(set(found["models_sha256"].values())) == len(found["models_sha256"]) == 2
    assert (found["kind"], found["schema_version"]) == ("ld_deploy.precision_report", 1)


def test_a_fixed_canvas_is_compared_with_its_own_rule(small: Any) -> None:
    rule = {"size_divisor": 32, "pad_value": (0, 0, 0), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    own = small.test_dataloader.dataset.pipeline

    def step(**kinds: Any) -> dict[str, Any]:
        changed = pipeline_of(own, Preprocess(**{"scale": None, "input_hw": None, **kinds, **rule}))  # type: ignore[arg-type]
        assert [one["type"] for one in changed[2:]] == ["LoadAnnotations", "PackDetInputs"]
        return changed[1]

    assert step(resize="letterbox", input_hw=(160, 192)) == {"type": "Letterbox", "input_hw": (160, 192)}
    assert step(resize="stretch", input_hw=(160, 192)) == {"type": "Resize", "scale": (192, 160), "keep_ratio": False}
    assert step(resize="keep_ratio", scale=(96, 64)) == {"type": "Resize", "scale": (96, 64), "keep_ratio": True}


def test_files_must_promise_the_same(student: Path, candidates_file: Path) -> None:
    cards = {
        path.name: ModelCard.from_json({one.key: one.value for one in onnx.load(path).metadata_props}[METADATA_KEY])
        for path in (student, candidates_file)
    }
    assert common_card({"a": cards["student.onnx"], "b": cards["student.onnx"]}) == cards["student.onnx"]
    with pytest.raises(ConfigError, match=r"candidates.onnx and student.onnx differ in canvas"):
        common_card(cards)
    with pytest.raises(ConfigError, match="no deployed file was given"):
        common_card({})


def test_coco_truth_keeps_its_own_areas_and_crowds(
    small: Any, checkpoint: Path, data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(data_root, tmp_path / "data", ignore=shutil.ignore_patterns("*.onnx", "*.pth", "*.engine*"))
    content = json.loads((data_root / "truth.json").read_text(encoding="utf-8"))
    content["annotations"][0].update(area=7.0, iscrowd=1)
    content["categories"] = [{"id": 9, "name": "dog"}, *content["categories"]]
    content["annotations"].append(
        {"id": 999, "image_id": 0, "category_id": 9, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}
    )
    (tmp_path / "data" / "truth.json").write_text(json.dumps(content), encoding="utf-8")
    truth = load_truth({**small.test_dataloader.dataset, "data_root": f"{tmp_path}/data/"}, limit=2)
    assert [one["id"] for one in truth.document["images"]] == list(truth.image_ids)
    assert truth.image_ids == (0, 1)
    assert truth.category_ids == (1, 2, 3)
    assert {one["image_id"] for one in truth.document["annotations"]} == {0, 1}
    assert truth.document["annotations"][0]["area"] == 7.0
    assert truth.document["annotations"][0]["iscrowd"] == 1
    assert [one["name"] for one in truth.document["categories"]] == ["ant", "bee", "cat"]


VOC = """<annotation><size><width>140</width><height>100</height><depth>3</depth></size>
<object><name>bee</name><difficult>0</difficult><bndbox><xmin>11</xmin><ymin>21</ymin><xmax>51</xmax><ymax>41</ymax></bndbox></object>
<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>
<object><name>ant</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>9</ymax></bndbox></object>
</annotation>"""


def voc_settings(small: Any, root: Path, data_root: Path) -> dict[str, Any]:
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        (root / folder).mkdir()
    shutil.copy(data_root / "0.png", root / "JPEGImages" / "0.jpg")
    (root / "Annotations" / "0.xml").write_text(VOC, encoding="utf-8")
    (root / "ImageSets" / "test.txt").write_text("0\n", encoding="utf-8")
    return {
        "type": "VOCFormatDataset",
        "data_root": f"{root}/",
        "ann_file": "ImageSets/test.txt",
        "data_prefix": {"sub_data_root": ""},
        "metainfo": {"classes": ("ant", "bee", "cat")},
        "pipeline": small.test_dataloader.dataset.pipeline,
    }


def test_voc_truth(small: Any, data_root: Path, tmp_path: Path) -> None:
    import ld_deploy.models  # noqa: F401

    truth = load_truth(voc_settings(small, tmp_path, data_root))
    assert truth.document["images"] == [{"id": 0, "file_name": "0.jpg", "height": 100, "width": 140}]
    found = [(one["category_id"], one["bbox"], one["area"], one["iscrowd"]) for one in truth.document["annotations"]]
    # VOC counts pixels from 1; the difficult box is ignored by the metric; the one of width 0 is left out.
    assert found == [(2, [10, 20, 40, 20], 800, 0), (3, [0, 0, 8, 8], 64, 1)]
    assert truth.degenerate_boxes == 1
    assert truth.category_ids == (1, 2, 3)


def test_bad_data(small: Any, checkpoint: Path, data_root: Path, tmp_path: Path) -> None:
    settings = dict(small.test_dataloader.dataset)
    with pytest.raises(DataError, match=r"cannot be read: .*nowhere.json.*look at data_root and ann_file"):
        load_truth({**settings, "ann_file": "nowhere.json"})
    with pytest.raises(DataError, match="limit must be 1 or more, got 0"):
        load_truth(settings, limit=0)
    with pytest.raises(DataError, match=r"6 of 6 images are not there, the first is .*gone/0.png: look at data_prefix"):
        load_truth({**settings, "data_prefix": {"img": "gone/"}})
    empty = json.loads((data_root / "truth.json").read_text(encoding="utf-8"))
    empty.update(images=[], annotations=[])
    (tmp_path / "empty.json").write_text(json.dumps(empty), encoding="utf-8")
    with pytest.raises(DataError, match="lists no image"):
        load_truth({**settings, "ann_file": str(tmp_path / "empty.json")})


def test_a_checkpoint_that_is_not_there(config_file: Path, student: Path, tmp_path: Path) -> None:
    from ld_runtime.errors import CheckpointError

    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nowhere.pth"):
        verify(config_file, checkpoint=tmp_path / "nowhere.pth", models=[student])
