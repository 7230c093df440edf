"""AP over mixed features: the ends are the models' own AP, and what lies between is checked with a shifted model."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
from mmengine.config import Config

from ld_deploy.checkpoint import load_model, read_checkpoint
from ld_deploy.commands import landscape as command
from ld_deploy.landscape import Curve, Side, ap_metric, check_pair, describe, landscape
from ld_deploy.landscape_report import draw, table, to_json_content
from ld_deploy.train import evaluate, train
from ld_runtime.errors import ConfigError

QUIET = {"log_level": "ERROR"}
FAST = {
    **QUIET,
    "optim_wrapper.optimizer": {"_delete_": True, "type": "Adam", "lr": 0.003},
    "param_scheduler": [],
    "auto_scale_lr.enable": False,
    "train_cfg.val_interval": 100,
}
COCO = ("coco/bbox_mAP", "coco/bbox_mAP_50", "coco/bbox_mAP_75")


@pytest.fixture(scope="module")
def sides(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Side, Side]:
    """Two models that find most squares, of other widths and seeds."""
    work = tmp_path_factory.mktemp("sides")
    wide = Config.fromfile(tiny_config)
    wide.model.backbone.base_channels = wide.model.backbone.stem_channels = 16
    wide.model.neck.in_channels = [16, 32, 64, 128]
    wide.dump(str(work / "wide.py"))
    made = []
    for seed, config, epochs in ((0, tiny_config, 12), (1, work / "wide.py", 8)):
        changes = {**FAST, "randomness.seed": seed, "train_cfg.max_epochs": epochs}
        made.append(Side(config, train(config, work_dir=work / str(seed), overrides=changes)))
    return made[0], made[1]


def own_ap(side: Side, tmp_path: Path, **overrides: Any) -> dict[str, float]:
    return evaluate(side.config, side.checkpoint, work_dir=tmp_path / "eval", overrides={**QUIET, **overrides})


def point(curve: Curve, index: int) -> tuple[float, float, float]:
    return curve.ap[index], curve.ap50[index], curve.ap75[index]


def test_ends_are_what_evaluate_gives(sides: tuple[Side, Side], tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    first, second = landscape(sides[0], b=sides[1], mixes=(0, 0.5, 1), progress=lambda *what: told.append(what))
    of_a, of_b = (tuple(own_ap(side, tmp_path)[key] for key in COCO) for side in sides)
    assert min(*of_a, *of_b) > 0.1  # there is something to compare
    assert of_a != of_b
    assert (first.head, second.head) == ("a", "b")
    assert point(first, 0) == of_a
    assert point(second, 2) == of_b
    # The other model's features mean little to a head.
    assert first.ap[2] < 0.5 * of_a[0]
    assert second.ap[0] < 0.5 * of_b[0]
    assert [what for what in told if what[0] == "batches of images"][-1] == ("batches of images", 12, 12)
    assert told[-1] == ("evaluations", 6, 6)


def test_a_model_and_itself_are_flat(sides: tuple[Side, Side], tmp_path: Path) -> None:
    wanted = own_ap(sides[0], tmp_path)["coco/bbox_mAP"]
    for curve in landscape(sides[0], b=sides[0], mixes=(-1, 0.3, 2)):
        assert curve.ap == (wanted,) * 3


def test_between_and_beyond_the_ends(sides: tuple[Side, Side], tmp_path: Path) -> None:
    """B is A with its first level shifted by c: the mix m is A shifted by m c, whose AP `evaluate` gives."""
    a = sides[0]
    shift = 4.0 * torch.randn(64, generator=torch.Generator().manual_seed(3))

    def shifted(by: float) -> Side:
        content = read_checkpoint(a.checkpoint)
        state = {**content["state_dict"]}
        state["neck.fpn_convs.0.conv.bias"] = state["neck.fpn_convs.0.conv.bias"] + by * shift
        torch.save({"state_dict": state, "meta": content["meta"]}, tmp_path / f"{by}.pth")
        return Side(a.config, tmp_path / f"{by}.pth")

    mixes = (-0.5, 0.25, 0.5, 1.5)
    wanted = [own_ap(shifted(mix), tmp_path)["coco/bbox_mAP"] for mix in mixes]
    assert len(set(wanted)) > 2
    for curve in landscape(a, b=shifted(1), mixes=mixes):
        assert curve.ap == pytest.approx(wanted, abs=0.002)


def test_voc_metric_and_val_split(sides: tuple[Side, Side], tmp_path: Path) -> None:
    changes = {f"{split}_evaluator": {"_delete_": True, "type": "VOCRangeMetric"} for split in ("val", "test")}
    first, _ = landscape(sides[0], b=sides[1], mixes=(0,), split="val", overrides=changes)
    own = own_ap(sides[0], tmp_path, **changes)
    assert point(first, 0) == tuple(own[f"pascal_voc/{key}"] for key in ("AP", "AP50", "AP75"))
    assert min(point(first, 0)) > 0.1


def described(tiny_config: Path, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for change in changes:
        config = Config.fromfile(tiny_config)
        config.merge_from_dict(change)
        found.append(describe(load_model(config, None), config, split="val"))
    return found


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model.data_preprocessor.mean": [0.0, 0.0, 0.0]}, "pixel mean"),
        ({"model.data_preprocessor.bgr_to_rgb": False}, "channel order"),
        ({"model.data_preprocessor.pad_size_divisor": 64}, "padding"),
        ({"model.data_preprocessor.input_hw": (64, 96)}, "padding"),
        ({"val_dataloader.dataset.pipeline.2.scale": (128, 96)}, "val pipeline"),
        ({"model.neck.num_outs": 6}, "number of levels is 6, A's 5"),
        ({"model.neck.out_channels": 32}, r"channels is \[32, 32, 32, 32, 32\], A's \[64"),
        ({"model.neck.start_level": 0}, r"strides is \[4, 8, 16, 32, 64\], A's \[8"),
        ({"model.bbox_head.num_classes": 3}, "number of classes is 3, A's 2"),
    ],
)
def test_what_does_not_fit_is_named(tiny_config: Path, changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot be mixed: B's .*{name}"):
        check_pair(*described(tiny_config, {}, changes))


def test_labels_may_be_read_in_another_way(tiny_config: Path) -> None:
    steps = Config.fromfile(tiny_config).val_dataloader.dataset.pipeline
    assert [step["type"] for step in steps][1:3] == ["LoadAnnotations", "Resize"]
    other = [{**steps[0], "backend_args": None}, steps[2], {**steps[1], "with_mask": True}, steps[3]]
    check_pair(*described(tiny_config, {}, {"val_dataloader.dataset.pipeline": other}))


def test_class_names_of_the_checkpoints(sides: tuple[Side, Side], tmp_path: Path) -> None:
    content = read_checkpoint(sides[1].checkpoint)
    for classes in (("green", "blue"), None):
        meta = {"dataset_meta": {"classes": classes}} if classes else {}
        torch.save({"state_dict": content["state_dict"], "meta": meta}, tmp_path / "b.pth")
        if classes:
            with pytest.raises(ConfigError, match=r"class names is \('green', 'blue'\), A's \('blue', 'green'\)"):
                landscape(sides[0], b=Side(sides[1].config, tmp_path / "b.pth"), mixes=(0,))
        else:
            landscape(sides[0], b=Side(sides[1].config, tmp_path / "b.pth"), mixes=(0,))


def test_other_mistakes(sides: tuple[Side, Side], tiny_config: Path) -> None:
    with pytest.raises(ConfigError, match="split must be test or val"):
        landscape(sides[0], b=sides[1], mixes=(0,), split="train")
    with pytest.raises(ConfigError, match="one dense head on its neck can be mixed, got Linear"):
        describe(torch.nn.Linear(1, 1), Config.fromfile(tiny_config), split="test")
    with pytest.raises(ConfigError, match=r"CocoMetric, VOCRangeMetric, DOTAMetric that evaluates, .* is VOCMetric"):
        ap_metric({"type": "VOCMetric"})
    with pytest.raises(ConfigError, match="the config's is CocoMetric"):
        ap_metric({"type": "CocoMetric", "format_only": True, "outfile_prefix": "x"})
    assert type(ap_metric([{"type": "VOCMetric"}, {"type": "VOCRangeMetric"}])).__name__ == "VOCRangeMetric"


def run_command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ld_runtime.cli", "landscape", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_writes_json_and_picture(sides: tuple[Side, Side], tmp_path: Path) -> None:
    output = tmp_path / "made" / "x.json"
    models = [part for side in sides for part in (side.config, side.checkpoint)]
    options = ("--steps", "4", "--from", "-0.2", "--to", "1.0", "--split", "val")
    result = run_command(*models, "-o", output, *options, "--set", "val_dataloader.batch_size=2")
    assert result.returncode == 0, result.stderr
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["mix"] == [-0.2, 0.2, 0.6, 1.0]
    assert [curve["head"] for curve in content["curves"]] == ["a", "b"]
    for curve in content["curves"]:
        for key in ("ap", "ap50", "ap75"):
            assert len(curve[key]) == 4
            assert all(0 <= value <= 1 for value in curve[key])
    assert content["curves"][1]["ap"][3] > 0.1
    for name, side in zip("ab", sides, strict=True):
        sha256 = hashlib.sha256(Path(side.checkpoint).read_bytes()).hexdigest()
        wanted = {"config": str(side.config), "checkpoint": str(side.checkpoint), "sha256": sha256}
        assert content["models"][name] == wanted
    assert (content["split"], content["overrides"]) == ("val", {"val_dataloader.batch_size": 2})
    assert {"ld-deploy", "torch", "mmdet", "mmengine"} == set(content["versions"])
    assert cv2.imread(str(output.with_suffix(".png"))).shape[0] > 300
    assert "batches of images" in result.stdout
    assert "Accumulating" not in result.stdout


def test_command_mistakes() -> None:
    two = {"config_a": "a.py", "checkpoint_a": "a.pth", "config_b": "b.py", "checkpoint_b": "b.pth"}
    with pytest.raises(ConfigError, match="--from must be below --to"):
        command.landscape(**two, from_=1, to=1)
    with pytest.raises(ConfigError, match=r"must end in \.json"):
        command.landscape(**two, output=Path("x.png"))


def test_report_of_known_numbers(tmp_path: Path) -> None:
    curves = (Curve("a", (0.5, 0.25), (0.75, 0.5), (0.5, 0.125)), Curve("b", (0.0, 0.375), (0.0, 0.5), (0.0, 0.25)))
    sides = Side("one.py", "https://host/one.pth"), Side("two.py", "nowhere.pth")
    content = to_json_content(curves, a=sides[0], b=sides[1], mixes=(0, 1), split="test", overrides={})
    assert content["models"]["a"] == {"config": "one.py", "checkpoint": "https://host/one.pth", "sha256": None}
    columns = table(content).columns
    assert [column.header for column in columns[:3]] == ["mix", "A's head: ap", "A's head: ap50"]
    assert [list(column.cells) for column in columns[:2]] == [["0", "1"], ["50.0", "25.0"]]
    assert list(columns[4].cells) == ["0.0", "37.5"]
    draw(content, output=tmp_path / "x.png")
    assert cv2.imread(str(tmp_path / "x.png")) is not None
