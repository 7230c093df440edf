"""Training, testing and publishing through the public functions, on a data set of twelve images."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config

from ld_deploy.checkpoint import load_model, publish, read_checkpoint
from ld_deploy.config import load_config, student_only
from ld_deploy.published import measurements
from ld_deploy.settings import parse_overrides
from ld_deploy.train import build_runner, evaluate, train
from ld_runtime.errors import CheckpointError, ConfigError, DataError

QUIET = {"log_level": "ERROR", "default_hooks.logger.interval": 1}


@pytest.fixture(scope="module")
def teacher(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of a finished training."""
    work_dir = tmp_path_factory.mktemp("teacher")
    assert train(tiny_config, work_dir=work_dir, overrides=QUIET).name == "best.pth"
    return work_dir


def distilled(tiny_config: Path, checkpoint: Path | str, **changes: Any) -> Config:
    config = Config.fromfile(tiny_config)
    config.model.update(
        type="DistilledDetector",
        teacher={"config": str(tiny_config), "checkpoint": str(checkpoint)},
        distill=[
            {"type": "LocalizationKD", "region": "main", "weight": 1, "temperature": 10},
            {"type": "ClassificationKD", "region": "vlr", "weight": 1, "temperature": 2},
        ],
    )
    config.model.update(changes)
    return config


def term(**changes: Any) -> dict[str, Any]:
    return {"type": "LocalizationKD", "region": "main", "weight": 1, "temperature": 10, **changes}


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def test_distilled_student_trains_and_is_a_student_afterwards(tiny_config: Path, teacher: Path, tmp_path: Path) -> None:
    best = train(distilled(tiny_config, teacher / "best.pth"), work_dir=tmp_path, overrides=QUIET)
    steps = [row for row in scalars(tmp_path) if "loss" in row]
    assert len(steps) == 3
    for row in steps:
        terms = [row[key] for key in ("loss_cls", "loss_bbox", "loss_dfl", "loss_ld_main", "loss_kd_vlr")]
        assert sum(terms) == pytest.approx(row["loss"], rel=1e-4)  # the region counts are logged, not added
        assert row["locations_main"] > 0
    keys = set(read_checkpoint(best)["state_dict"])
    assert keys == set(load_model(tiny_config, None).state_dict())
    assert evaluate(tiny_config, best, work_dir=tmp_path / "eval", overrides=QUIET)["coco/bbox_mAP"] >= 0
    assert any(path.name.startswith("events.out.tfevents") for path in tmp_path.rglob("*"))


def test_resume_goes_on_where_it_stopped(tiny_config: Path, tmp_path: Path) -> None:
    train(tiny_config, work_dir=tmp_path, overrides=QUIET)
    runner = build_runner(tiny_config, work_dir=tmp_path, resume=True, overrides={**QUIET, "train_cfg.max_epochs": 2})
    runner.train()
    assert (runner.epoch, runner.iter) == (2, 6)
    assert read_checkpoint(tmp_path / "epoch_2.pth")["meta"]["epoch"] == 2


def test_learning_rate_follows_the_batch(tiny_config: Path, tmp_path: Path) -> None:
    runner = build_runner(tiny_config, work_dir=tmp_path, overrides=QUIET)
    runner.train()
    # 0.01 for 16 images a step; 4 here. The warm-up of 500 steps has done 3 of its 499 increments.
    rates = [row["lr"] for row in scalars(tmp_path) if "lr" in row]
    assert rates[0] == pytest.approx(0.0025 * 0.001, rel=1e-3)


def test_teacher_is_frozen_and_outside_of_the_student(tiny_config: Path, teacher: Path) -> None:
    model: Any = MODELS.build(distilled(tiny_config, teacher / "best.pth").model)
    frozen = model.teacher.module
    assert not frozen.training
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    owned = {id(parameter) for parameter in model.parameters()}
    assert not owned & {id(parameter) for parameter in frozen.parameters()}
    assert set(model.state_dict()) == set(load_model(tiny_config, None).state_dict())
    model.train()
    assert not frozen.training
    assert copy.deepcopy(model).teacher is model.teacher
    model.double()
    assert {parameter.dtype for parameter in frozen.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"model.bbox_head.num_classes": 3}, "number of classes"),
        ({"model.bbox_head.reg_max": 8}, "reg_max"),
        ({"model.data_preprocessor.mean": [0.0, 0.0, 0.0]}, "pixel mean"),
        ({"model.data_preprocessor.bgr_to_rgb": False}, "channel order"),
    ],
)
def test_teacher_that_does_not_fit_is_named(
    tiny_config: Path, teacher: Path, change: dict[str, Any], name: str
) -> None:
    config = distilled(tiny_config, teacher / "best.pth")
    config.merge_from_dict(change)
    with pytest.raises(ConfigError, match=name):
        MODELS.build(config.model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill": []}, "names no term"),
        ({"recipe": "other"}, "no distillation recipe 'other'"),
        ({"teacher": {"weights": "x"}}, "teacher must be dict"),
        ({"teacher": {"config": "nowhere.py", "checkpoint": "x"}}, "no config nowhere.py"),
        ({"distill": [term(region="all")]}, "no distillation region"),
        ({"distill": [term(temperature=0.5)]}, "at least 1"),
        ({"distill": [term(weight=-1)]}, "not be negative"),
        ({"distill": [term(), term()]}, "stand once"),
    ],
)
def test_bad_distillation_settings(tiny_config: Path, teacher: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODELS.build(distilled(tiny_config, teacher / "best.pth", **changes).model)


def test_publish_holds_weights_alone_and_gives_the_same_detections(
    tiny_config: Path, teacher: Path, tmp_path: Path
) -> None:
    path = publish(tiny_config, teacher / "best.pth", output_dir=tmp_path)
    assert path.name.startswith("best-")
    assert len(path.stem) == len("best-") + 8
    content = torch.load(path, weights_only=True)  # nothing but tensors and plain values
    assert set(content) == {"state_dict", "meta"}
    assert tuple(content["meta"]["dataset_meta"]["classes"]) == ("blue", "green")
    image = {"inputs": torch.rand(1, 3, 64, 96)}
    maps = [load_model(tiny_config, source)(image["inputs"], mode="tensor") for source in (teacher / "best.pth", path)]
    for first, second in zip(*[[level for kind in each for level in kind] for each in maps], strict=True):
        torch.testing.assert_close(first, second)
    assert publish(tiny_config, path, output_dir=tmp_path / "again").stat().st_size == path.stat().st_size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no checkpoint"),
        (b"not a checkpoint", "is damaged|cannot be read"),
        (b"", "cannot be read|damaged"),
    ],
)
def test_bad_checkpoints(tiny_config: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_model(tiny_config, path)


def test_truncated_checkpoint(tiny_config: Path, teacher: Path, tmp_path: Path) -> None:
    whole = (teacher / "best.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"half\.pth"):
        load_model(tiny_config, tmp_path / "half.pth")


def test_checkpoint_of_another_config_names_the_keys(tiny_config: Path, teacher: Path) -> None:
    config = load_config(tiny_config)
    config.merge_from_dict({"model.bbox_head.num_classes": 5})
    with pytest.raises(CheckpointError, match=r"bbox_head.gfl_cls.weight is \(2, .*model's \(5, "):
        load_model(config, teacher / "best.pth")


def test_bad_data_is_named_before_training(tiny_config: Path, squares: Path, tmp_path: Path) -> None:
    def run(**changes: Any) -> None:
        overrides = {f"train_dataloader.dataset.{key}": value for key, value in changes.items()}
        build_runner(tiny_config, work_dir=tmp_path, overrides={**QUIET, **overrides})

    with pytest.raises(DataError, match="are not there"):
        run(data_prefix={"img": "nowhere/"})
    # mmdet would take the classes that the file knows, and move or exchange the labels.
    for classes, message in (
        (("blue", "gren"), r"has no category gren; did you mean 'green'\? it has: blue, green\. Write metainfo"),
        (("Blue", "xyz"), r"has no category Blue, xyz; did you mean 'blue'\?"),
        (("green", "blue"), r"would exchange them: write metainfo\.classes as \('blue', 'green'\)"),
    ):
        with pytest.raises(DataError, match=message):
            run(metainfo={"classes": classes})
    document = json.loads((squares / "train.json").read_text(encoding="utf-8"))
    (tmp_path / "boxless.json").write_text(json.dumps({**document, "annotations": []}), encoding="utf-8")
    with pytest.raises(DataError, match="class names in the config must be"):
        run(ann_file=str(tmp_path / "boxless.json"))
    with pytest.raises(ConfigError, match="the head has 2 classes, the data set 3"):
        run(metainfo={"classes": ("blue", "green", "red")})
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "blue"}, {"id": 2, "name": "green"}]}
    (tmp_path / "empty.json").write_text(json.dumps(empty), encoding="utf-8")
    with pytest.raises(DataError, match="lists no image"):
        run(ann_file=str(tmp_path / "empty.json"))


def test_amp_without_a_gpu_says_so(tiny_config: Path, tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--amp needs a GPU"):
            build_runner(tiny_config, work_dir=tmp_path, amp=True)
    else:
        assert build_runner(tiny_config, work_dir=tmp_path, amp=True).cfg.optim_wrapper.type == "AmpOptimWrapper"


def test_teacher_of_other_class_names(tiny_config: Path, squares: Path, teacher: Path, tmp_path: Path) -> None:
    config = distilled(tiny_config, teacher / "best.pth")
    document = json.loads((squares / "train.json").read_text(encoding="utf-8"))
    document["categories"].reverse()
    (tmp_path / "reversed.json").write_text(json.dumps(document), encoding="utf-8")
    changes = {"metainfo.classes": ("green", "blue"), "ann_file": str(tmp_path / "reversed.json")}
    config.merge_from_dict({f"train_dataloader.dataset.{key}": value for key, value in changes.items()})
    with pytest.raises(DataError, match=r"teacher was trained on the classes \('blue', 'green'\)"):
        build_runner(config, work_dir=tmp_path, overrides=QUIET)


def test_eval_writes_what_the_published_table_reads(tiny_config: Path, teacher: Path, tmp_path: Path) -> None:
    output = tmp_path / "results" / "tiny.json"
    command = ["eval", str(tiny_config), str(teacher / "best.pth"), "--split", "val", "-o", str(output)]
    quiet = ["--set", "log_level=ERROR", "--set", f"work_dir={tmp_path / 'work'}"]
    result = subprocess.run(
        [sys.executable, "-m", "ld_runtime.cli", *command, *quiet],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    content = json.loads(output.read_text(encoding="utf-8"))
    assert (content["config"], content["split"]) == (str(tiny_config), "val")
    assert content["ap"] == content["metrics"]["coco/bbox_mAP"]
    (measured,) = measurements(output.parent)[str(tiny_config)]
    assert (measured.split, measured.ap) == ("val", (content["ap"],))


def test_student_only_drops_the_teacher(tiny_config: Path) -> None:
    config = student_only(distilled(tiny_config, "nowhere.pth"))
    assert config.model.type == "SingleStageDetector"
    assert not {"teacher", "distill", "recipe"} & set(config.model)


def test_overrides_are_literals_or_text() -> None:
    assert parse_overrides(["a.b=2", "c=x.py", "d=(1, 2)"]) == {"a.b": 2, "c": "x.py", "d": (1, 2)}
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_overrides(["a"])


def test_command_line_error_is_one_line_and_status_2() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "ld_runtime.cli", "train", "nowhere.py"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "there is no config nowhere.py" in result.stderr
    assert "Traceback" not in result.stderr


def write_voc(root: Path, *, name: str, boxes: list[tuple[int, int, int, int]]) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / "JPEGImages" / "a.jpg"), np.zeros((64, 96, 3), np.uint8))
    objects = "".join(
        f"<object><name>{name}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2 in boxes
    )
    size = "<size><width>96</width><height>64</height><depth>3</depth></size>"
    text = f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>"
    (root / "Annotations" / "a.xml").write_text(text, encoding="utf-8")
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\n", encoding="utf-8")


def voc_dataset(root: Path) -> Any:
    from mmdet.registry import DATASETS

    config = {"type": "VOCFormatDataset", "data_root": str(root), "ann_file": "ImageSets/Main/train.txt"}
    return DATASETS.build(
        {**config, "data_prefix": {"sub_data_root": ""}, "metainfo": {"classes": ("cell",)}, "pipeline": []}
    )


def test_voc_degenerate_box_is_ignored(tmp_path: Path) -> None:
    write_voc(tmp_path, name="cell", boxes=[(10, 10, 30, 30), (5, 5, 5, 20)])
    instances = voc_dataset(tmp_path).get_data_info(0)["instances"]
    assert [(each["bbox"], each["ignore_flag"]) for each in instances] == [([9, 9, 29, 29], 0), ([4, 4, 4, 19], 1)]


def test_voc_unknown_class_is_an_error(tmp_path: Path) -> None:
    write_voc(tmp_path, name="plate", boxes=[(10, 10, 30, 30)])
    with pytest.raises(DataError, match=r"a\.jpg holds the class 'plate', metainfo.classes has cell"):
        voc_dataset(tmp_path)
