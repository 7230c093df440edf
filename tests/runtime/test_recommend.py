"""`ld-deploy recommend` on tiny files: what is tried, what it says of each, and that its commands are right."""

import json
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import pytest

from ld_runtime import Detector, cli, missing_files, recommendation
from ld_runtime.engines import ModelSpec
from ld_runtime.errors import ConfigError
from ld_runtime.missing_files import MadeFiles, MakeSettings
from ld_runtime.pareto import Choice
from ld_runtime.recommendation import NotTried, advice, command_of, discover, python_of

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def folder(rectangles, tmp_path) -> Path:
    """One image with a blue box, and its annotations in the folder above."""
    images: Path = tmp_path / "my images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), rectangles((96, 160), blue=(10, 20, 50, 60)))
    truth = {
        "images": [{"id": 7, "file_name": "a.png", "width": 160, "height": 96}],
        "categories": [{"id": 11 + index, "name": name} for index, name in enumerate(("blue", "green", "red"))],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 11, "bbox": [10, 20, 40, 40], "area": 1600, "iscrowd": 0}
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth), encoding="utf-8")
    return images


@pytest.fixture
def run(capsys, folder) -> Run:
    def start(*arguments: object, status: int = 0) -> dict[str, Any]:
        given = ["recommend", *map(str, arguments), "--images", str(folder), "--seconds", "0.1", "--json"]
        with pytest.raises(SystemExit) as stopped:
            cli.main(given)
        captured = capsys.readouterr()
        assert stopped.value.code == status, captured.err
        said = " ".join(captured.err.split())
        return {**(json.loads(captured.out) if captured.out else {}), "said": said}

    return start


def test_ap_of_all_that_runs_the_file(run, model_file, folder) -> None:
    output = folder.parent / "recommend.json"
    content = run(model_file(), "--annotations", folder.parent / "truth.json", "-o", output)
    said = content.pop("said")
    assert json.loads(output.read_text(encoding="utf-8")) == content
    assert (content["schema_version"], content["kind"], content["images"]["count"]) == (1, "recommend", 1)
    points = {(one["backend"], one["precision"]): one for one in content["points"]}
    assert set(points) == {("onnxruntime", "fp32"), ("openvino", "fp32")}
    assert [one["ap"] for one in points.values()] == [pytest.approx(1.0)] * 2
    assert any(one["on_front"] for one in points.values())
    for one in points.values():
        assert one["latency"]["median_ms"] <= one["latency"]["p90_ms"] <= one["latency"]["p99_ms"]
    # The fake network ends in no node of ours, so nothing can be computed in bf16 in front of it.
    bf16, int8 = content["not_tried"]
    assert bf16["what"].endswith("model.onnx@openvino:bf16")
    assert "bf16" in bf16["reason"] or "bfloat16" in bf16["reason"]
    command = shlex.split(int8["command"])
    assert command[:3] == ["ld-deploy", "quantize", str(folder.parent / "model.onnx")]
    assert command[-1] == str(folder.parent / "model.int8.onnx")
    assert content["take"] in {one["name"] for one in content["points"]}
    assert content["advice"].startswith(f"take {content['take']}: ")
    assert content["advice"] in said


def test_difference_to_the_first_with_an_interval(run, model_file, folder) -> None:
    # The second file never finds the blue box: it swaps the names of blue and red.
    other = model_file(name="other.onnx", class_names=("red", "green", "blue"))
    files = [f"{path}@onnxruntime" for path in (model_file(), other)]
    content = run(*files, "--annotations", folder.parent / "truth.json")
    first, second = content["points"]
    assert (first["ap_difference"], first["ap_interval"]) == (None, None)
    assert second["ap_difference"] == pytest.approx(-1)
    assert second["ap_interval"] == [pytest.approx(-1), pytest.approx(-1)]  # one image: every sample is the same
    assert "-100.0" in content["said"]
    assert "To the first: AP points more than model.onnx@onnxruntime" in content["said"]
    without = run(*files[:1])
    assert without["points"][0]["ap_interval"] is None
    assert "To the first" not in without["said"]


@pytest.fixture
def maker(monkeypatch) -> list[MakeSettings]:
    """What makes files here, in the place of the export side: an INT8 file; what it was asked is kept."""
    asked: list[MakeSettings] = []

    def make(given, *, settings, say) -> MadeFiles:
        asked.append(settings)
        path = settings.folder / "model.int8.onnx"
        path.write_bytes(given[0].path.read_bytes())
        say(f"quantize -> {path}")
        not_made = (NotTried(str(settings.folder / "x.engine"), "no GPU"),)
        return MadeFiles((ModelSpec(path),), (str(path),), not_made)

    monkeypatch.setattr(missing_files, "find_maker", lambda: make)
    return asked


def test_what_is_missing_is_made_and_measured(run, model_file, maker, tmp_path) -> None:
    content = run(model_file(), "--build", tmp_path / "built", "--calibration", "train images")
    assert maker == [MakeSettings(folder=tmp_path / "built", device="cpu", calibration="train images")]
    made = str(tmp_path / "built" / "model.int8.onnx")
    assert content["made"] == [{"model": made, "reused": True}]
    assert {one["model"] for one in content["points"]} == {str(tmp_path / "model.onnx"), made}
    assert f"quantize -> {made}" in content["said"]
    assert f"{made} is there already, made of the same" in content["said"]
    reasons = {Path(one["what"]).name: one["reason"] for one in content["not_tried"]}
    assert reasons["x.engine"] == "no GPU"
    assert not any("quantize" in str(one["command"]) for one in content["not_tried"])


def test_making_is_refused_where_it_cannot_be_right(run, model_file, maker, tmp_path) -> None:
    assert "--calibration is for the INT8 file" in run(model_file(), "--calibration", "x", status=2)["said"]
    (tmp_path / "b").mkdir()
    twice = model_file(), model_file(name="b/model.onnx")
    said = run(*twice, "--build", tmp_path / "built", status=2)["said"]
    assert "two files are called model.onnx" in said
    assert not maker


def test_without_the_export_side_nothing_is_made(run, model_file, monkeypatch, tmp_path) -> None:
    class Entry:
        def load(self) -> None:
            raise ImportError("no", name="onnx")

    monkeypatch.setattr(missing_files, "entry_points", lambda **_: [Entry()])
    said = run(model_file(), "--build", tmp_path / "built", status=2)["said"]
    assert "--build needs onnx, which is not there: pip install 'ld-deploy[export]'" in said
    monkeypatch.setattr(missing_files, "entry_points", lambda **_: [])
    assert "entry point of an older install" in run(model_file(), "--build", tmp_path, status=2)["said"]


def test_its_commands_do_what_was_measured(run, model_file, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for point in run(model_file(name="a b@c.onnx"))["points"]:
        program, command, *arguments = shlex.split(point["command"])
        assert (program, command) == ("ld-deploy", "detect")
        spec = ModelSpec.parse(arguments[0])
        assert (str(spec.path), spec.backend) == (point["model"], point["backend"])
        opened: Detector = eval(point["python"], {"Detector": Detector})
        assert (opened.engine.facts.backend, opened.engine.facts.precision) == (point["backend"], point["precision"])
        with pytest.raises(SystemExit) as stopped:
            cli.main([command, *arguments])
        assert stopped.value.code == 0
        assert (tmp_path / "detections" / "detections.json").is_file()
        for file in (tmp_path / "detections").rglob("*.*"):
            file.unlink()


def test_commands_name_backend_precision_and_device() -> None:
    spec = ModelSpec(Path("my/student.onnx"), "openvino", "bf16")
    assert command_of(spec, "a b", device="cpu") == (
        "ld-deploy detect my/student.onnx@openvino:bf16 'a b' -o detections"
    )
    assert ModelSpec.parse(shlex.split(command_of(spec, "a b", device="cpu"))[2]) == spec
    assert python_of(spec, device="cpu") == "Detector('my/student.onnx', backend='openvino', precision='bf16')"
    engine = ModelSpec(Path("student.engine"))
    assert command_of(engine, "x", device="cuda:1") == (
        "ld-deploy detect student.engine x --device cuda:1 -o detections"
    )
    assert python_of(engine, device="cuda:1") == "Detector('student.engine', device='cuda:1')"


def test_agreement_with_the_first_file(run, model_file) -> None:
    content = run(model_file(), model_file(name="other.onnx"))
    assert "Agreement: share of boxes" in content["said"]
    assert [one["agreement"] for one in content["points"]] == [1.0] * 4
    assert len(content["points"]) == 4
    other = model_file(name="other.onnx", class_names=("a", "b", "c"))
    said = run(model_file(), other, status=2)["said"]
    assert "give files of the same classes" in said


def test_what_does_not_open_does_not_end_the_run(run, model_file, tmp_path) -> None:
    candidates_only = model_file(name="candidates.onnx", nms_kind="none")
    content = run(f"{model_file()}@onnxruntime", f"{candidates_only}@onnxruntime", tmp_path / "gone.onnx")
    assert [one["backend"] for one in content["points"]] == ["onnxruntime"]
    reasons = {Path(one["what"]).name: one["reason"] for one in content["not_tried"]}
    assert "--nms none" in reasons["candidates.onnx@onnxruntime"]
    assert "there is no such file" in reasons["gone.onnx@onnxruntime"]
    said = run(tmp_path / "gone.onnx", status=2)["said"]
    assert "nothing here runs on cpu" in said
    assert "there is no such file" in said


def test_budgets(run, model_file, folder) -> None:
    labelled = (f"{model_file()}@onnxruntime", "--annotations", folder.parent / "truth.json")
    content = run(*labelled, "--max-latency-ms", "0.000001")
    assert content["take"] is None
    assert content["advice"].startswith(
        "none is within 1e-06 ms: the fastest and the best is model.onnx@onnxruntime with "
    )
    content = run(*labelled, "--max-latency-ms", "60000", "--min-ap", "0.5")
    assert content["advice"].startswith("take model.onnx@onnxruntime (within 60000 ms and AP 0.5): ")
    assert "--min-ap needs the ground truth" in run(labelled[0], "--min-ap", "0.5", status=2)["said"]


def test_an_unknown_category(run, model_file, folder) -> None:
    file = folder.parent / "truth.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"blue"', '"blu"'), encoding="utf-8")
    assert "has no category ['blue']" in run(model_file(), "--annotations", file, status=2)["said"]


def found(*files: str | Path, device: str) -> tuple[list[str], dict[str, str | None]]:
    specs, not_tried = discover([ModelSpec.parse(str(one)) for one in files], device=device)
    return [one.name for one in specs], {Path(one.what).name: one.command for one in not_tried}


def test_discovery_on_a_cpu(model_file) -> None:
    floats, int8 = model_file(name="s.onnx"), model_file(name="s.int8.onnx", precision="int8")
    specs, not_tried = found(floats, int8, f"{floats}@openvino", "x.engine", device="cpu")
    fp32 = ["s.onnx@onnxruntime", "s.onnx@openvino", "s.onnx@openvino:bf16"]
    assert specs == [*fp32, "s.int8.onnx@onnxruntime", "s.int8.onnx@openvino"]
    assert not_tried == {"x.engine": "give --target cuda"}
    assert found(f"{floats}@openvino:bf16", int8, device="cpu")[0][0] == "s.onnx@openvino:bf16"


def test_discovery_on_a_gpu(model_file) -> None:
    floats, int8 = model_file(name="s.onnx"), model_file(name="s.int8.onnx", precision="int8")
    specs, not_tried = found(floats, int8, device="cuda")
    assert specs == ["s.onnx@onnxruntime", "s.int8.onnx@onnxruntime"]
    assert not_tried == {
        "s.fp16.engine": shlex.join(
            ["ld-deploy", "build", str(floats), "--precision", "fp16", "-o", str(floats.with_suffix(".fp16.engine"))]
        ),
        "s.int8.engine": shlex.join(["ld-deploy", "build", str(int8), "-o", str(int8.with_suffix(".engine"))]),
    }
    specs, not_tried = found(int8, "s.int8.engine", device="cuda")
    assert (specs, not_tried) == (["s.int8.onnx@onnxruntime", "s.int8.engine"], {})
    int8.with_suffix(".engine").touch()
    assert found(int8, device="cuda")[1] == {"s.int8.engine": "name it too"}


def test_a_missing_library_is_named_with_what_brings_it(model_file, monkeypatch) -> None:
    monkeypatch.setattr(recommendation, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    specs, not_tried = found(model_file(precision="int8"), device="cpu")
    assert specs == ["model.onnx@onnxruntime"]
    assert not_tried == {"model.onnx@openvino": "pip install 'ld-deploy[openvino]'"}


def test_the_sentence() -> None:
    first, other = Choice("student.onnx", 19, 0.5, 0.5), Choice("x", 10, 0.5, 0.498)
    assert advice(other, [first, other], word="AP") == "take x: 1.9 times as fast as student.onnx at -0.2 AP points"
    slower = Choice("x", 38, 0.5, 0.51)
    assert advice(slower, [first, slower], word="AP") == "take x: 0.5 times as fast as student.onnx at +1.0 AP points"
    same = Choice("x", 18.6, 0.5, 0.5)
    assert advice(same, [first, same], word="AP") == "take x: as fast as student.onnx at the same AP"
    assert advice(first, [first, same], word="AP") == "take student.onnx: no other is a better choice here"
    assert advice(None, [first, other], word="AP", max_latency_ms=5, min_quality=0.6) == (
        "none is within 5 ms and AP 0.6: the fastest is x with 10.0 ms, AP 0.498; "
        "the best is student.onnx with 19.0 ms, AP 0.500"
    )


def test_where_nothing_runs_every_reason_is_said(run, tmp_path) -> None:
    engine = tmp_path / "gone.engine"
    said = run(engine, status=2)["said"]
    assert f"nothing here runs on cpu: {engine}: an engine runs on a GPU: give --target cuda" in said
    said = run(engine, "--target", "cuda", status=2)["said"]
    assert f"nothing here runs on cuda: {engine}: cannot open {engine}: there is no such file" in said


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cpu:0", ""])
def test_a_wrong_target(device: str) -> None:
    with pytest.raises(ConfigError, match="the target must be cpu, cuda or cuda:N"):
        found(device=device)


def test_a_wrong_name_is_said_at_once(model_file) -> None:
    with pytest.raises(ConfigError, match="no backend is called 'openvin'"):
        found(f"{model_file()}@openvin", device="cpu")
