"""What a distilled training says of itself, and that it trains the same with and without saying it."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from ld_deploy.checkpoint import read_checkpoint
from ld_deploy.config import load_config
from ld_deploy.explain.hook import ExplainDistillation, add_explanation
from ld_deploy.explain.shares import GradientMeter, gradient_norms, shares
from ld_deploy.explain.table import ap_text, describe
from ld_deploy.train import build_runner, train
from tests.deploy.explain_cases import DISTILL, FLIPPED, same

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("cls", "bbox", "dfl", "ld_main", "ld_vlr", "kd_main", "im_gi")
OVERRIDES: dict[str, Any] = {
    "randomness.seed": 0,
    "default_hooks.logger.interval": 1,
    "train_dataloader.dataset.pipeline": FLIPPED,
    **dict.fromkeys(("val_cfg", "val_dataloader", "val_evaluator")),
}
HOOK = {"type": "ExplainDistillation", "interval": 2, "gradient_interval": 2}


@pytest.fixture(scope="module")
def teacher(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Config, of a wider neck than the student's, and checkpoint of a trained teacher."""
    folder = tmp_path_factory.mktemp("teacher")
    config = Config.fromfile(tiny_config)
    config.model.neck.out_channels = 96
    config.model.bbox_head.in_channels = 96
    config.dump(str(folder / "teacher.py"))
    return folder / "teacher.py", train(config, work_dir=folder, overrides={"log_level": "ERROR"})


def distilled(tiny_config: Path, teacher: tuple[Path, Path], *, cache: Path, **hook: Any) -> Config:
    config = Config.fromfile(tiny_config)
    files = {"config": str(teacher[0]), "checkpoint": str(teacher[1]), "cache": str(cache)}
    config.model.update(type="DistilledDetector", teacher=files, distill=copy.deepcopy(DISTILL))
    config.custom_hooks = [{**HOOK, **hook}]
    return config


@pytest.fixture(scope="module")
def explained(tiny_config: Path, teacher: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work dir of three epochs with the hook."""
    work_dir = tmp_path_factory.mktemp("explained")
    config = distilled(tiny_config, teacher, cache=work_dir / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "132")
        train(config, work_dir=work_dir, overrides={**OVERRIDES, "train_cfg.max_epochs": 3})
    return work_dir


def scalars(work_dir: Path) -> list[dict[str, Any]]:
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if "loss" in row]


def pictures(work_dir: Path) -> list[str]:
    return sorted(path.name for path in (work_dir / "pictures").iterdir())


def test_the_training_is_the_same_to_the_bit_without(
    tiny_config: Path, teacher: tuple[Path, Path], explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = distilled(tiny_config, teacher, cache=tmp_path / "cache")
    config.pop("custom_hooks")
    monkeypatch.setattr("ld_deploy.train.add_explanation", lambda _: None)
    train(config, work_dir=tmp_path, overrides={**OVERRIDES, "train_cfg.max_epochs": 3})
    assert not (tmp_path / "pictures").exists()
    with_hook, without = (read_checkpoint(folder / "last.pth") for folder in (explained, tmp_path))
    assert with_hook["meta"]["iter"] == without["meta"]["iter"] == 9
    assert any("running_var" in key for key in without["state_dict"])  # buffers too
    assert same(with_hook["state_dict"], without["state_dict"])
    assert same(with_hook["optimizer"], without["optimizer"])
    keys = [f"loss_{part}" for part in PARTS]
    assert [[row[key] for key in keys] for row in scalars(explained)] == [
        [row[key] for key in keys] for row in scalars(tmp_path)
    ]
    caches = [sorted(path.relative_to(each) for path in each.rglob("*.pt")) for each in (explained, tmp_path)]
    assert caches[0] == caches[1]  # the pictures' images went past it
    assert caches[0]


def test_the_log_says_what_is_distilled(teacher: tuple[Path, Path], explained: Path) -> None:
    (log,) = explained.glob("*/*.log")
    lines = log.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert rows == [
        ["what", "region", "weight", "temperature", "branch", "divided by"],
        ["LocalizationKD: edge distributions", "main", "1.5", "10", "own", "sum of student scores over positives"],
        ["LocalizationKD: edge distributions", "vlr (gamma=0.1)", "0.4", "10", "own", "positives"],
        ["ClassificationKD: class distribution", "main", "5", "2", "own", "positives"],
        ["FeatureKD: neck features", "gi", "2", "1", "own", "sum of region weights"],
    ]
    notes = dict(line.split(":", 1) for line in lines if line.split(":")[0].strip() in (*NOTES, "recipe"))
    found = {key.strip(): value.strip() for key, value in notes.items()}
    assert found["recipe"] == "default"
    assert found["teacher"] == str(teacher[0])
    ap = read_checkpoint(teacher[1])["message_hub"]["runtime_info"]["best_score"]
    assert found["weights"] == f"{teacher[1]}, AP {ap:.3f} on the validation split (epoch 1)"
    assert found["precision"] == "as the student trains"
    assert found["cache"] == str(explained / "cache")
    # A linear adapter of 64 to 96 channels.
    assert found["added"].startswith(f"adapters of {64 * 96 + 96:,} parameters")


NOTES = ("teacher", "weights", "size", "precision", "cache", "added")


def test_parameters_and_normalisers_in_the_table(build_detector: Callable[..., Any]) -> None:
    model = build_detector("gfl", teacher="gfl", distill=DISTILL[:3], recipe="published")
    teacher = {"config": "t.py", "checkpoint": model_file(build_detector)}
    text = describe(model, teacher=teacher, width=160)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,} parameters; the student has {count:,} (100%)" in text
    assert "none (grows with the images per GPU)" in text
    assert "mean per level, summed" in text
    assert "AP unknown" in text
    assert "added" not in text
    assert max(map(len, describe(model, teacher={**teacher, "config": "t"}, width=80).splitlines()[:12])) <= 80


def model_file(build_detector: Callable[..., Any]) -> str:
    """Of the teacher that the fixture made last."""
    (path,) = [cell.cell_contents for cell in build_detector.__closure__ or () if isinstance(cell.cell_contents, Path)]
    return str(path / "teacher.pth")


@pytest.mark.parametrize(
    ("meta", "known", "text"),
    [
        (
            {"epoch": 10, "iter": 1000},
            {"best_score": 0.441, "best_ckpt": "/x/best_coco_bbox_mAP_epoch_10.pth"},
            "AP 0.441 on the validation split (epoch 10)",
        ),
        (
            {"epoch": 11, "iter": 1100},
            {"best_score": 0.441, "best_ckpt": "/x/best_coco_bbox_mAP_epoch_10.pth"},
            "AP unknown (epoch 11); the best of its training was 0.441 on the validation split (epoch 10)",
        ),
        (
            {"epoch": 0, "iter": 500},
            {"best_score": 0.5, "best_ckpt": "best_pascal_voc_mAP_iter_500.pth"},
            "AP 0.500 on the validation split (iter 500)",
        ),
        ({"epoch": 10}, {"best_score": 0.9, "best_ckpt": "best_coco_bbox_AR_epoch_10.pth"}, "AP unknown"),
        ({}, {}, "AP unknown"),
    ],
)
def test_ap_of_a_checkpoint(meta: dict[str, Any], known: dict[str, Any], text: str) -> None:
    assert ap_text({"meta": meta, "message_hub": {"runtime_info": known}}) == text
    assert ap_text({"meta": {}}) == "AP unknown"  # a published file


def test_shares_in_the_log(explained: Path) -> None:
    rows = scalars(explained)
    assert len(rows) == 9
    for number, row in enumerate(rows):
        assert sum(row[f"share_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
        assert sum(row[f"grad_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
        for part in PARTS:
            assert row[f"share_{part}"] == pytest.approx(row[f"loss_{part}"] / row["loss"], rel=1e-5)
            # Measured at every second step, repeated in between.
            assert (row[f"grad_{part}"] == rows[number - 1][f"grad_{part}"]) == (number % 2 == 1)
            assert row[f"grad_{part}"] > 0
        total = sum(row[f"loss_{part}"] for part in PARTS)
        assert row["loss"] == pytest.approx(total, rel=1e-5)  # shares are logged, not added


def test_shares_by_hand() -> None:
    assert shares({"a": 1.0, "b": 3.0}) == {"a": 0.25, "b": 0.75}
    assert shares({"a": 0.0}) == {"a": 0.0}
    assert shares({}) == {}


def test_gradient_norms_by_hand() -> None:
    weights = torch.ones(2, requires_grad=True)
    maps = [weights[0] * torch.ones(1, 2, 2, 2), weights[1] * torch.ones(1, 2, 1, 1)]
    losses = {
        "loss_one": (3 * maps[0]).sum(),  # 3 at 8 numbers
        "loss_twice": 2 * (3 * maps[0]).sum(),
        "loss_both": [maps[0].sum(), (2 * maps[1]).sum()],  # 1 at 8 numbers, 2 at two
        "loss_mean": maps[0],  # of which mmengine takes the mean: 1 / 8 at 8 numbers
        "loss_apart": weights.sum(),
        "loss_constant": torch.tensor(5.0),
    }
    norms = gradient_norms(losses, maps)
    expected = (3 * 8**0.5, 6 * 8**0.5, 16**0.5, 8**-0.5, 0, 0)
    assert list(norms.values()) == pytest.approx(expected)
    assert list(gradient_norms(losses, maps, scale=4).values()) == pytest.approx([4 * each for each in expected])
    assert weights.grad is None
    losses["loss_both"][1].backward()  # the graph is still there
    assert weights.grad is not None
    assert gradient_norms({"loss": torch.ones((), requires_grad=True)}, [torch.ones(1)]) == {"loss": 0.0}


def test_meter_on_a_detector(build_detector: Callable[..., Any], training_step: tuple[Any, list[Any]]) -> None:
    def measured(weight: float) -> tuple[dict[str, float], Any]:
        terms = [{**DISTILL[0], "weight": weight}, DISTILL[2]]
        model = build_detector("gfl", teacher="gfl", distill=terms).train()
        meter = GradientMeter(model)
        losses = model(*copy.deepcopy(training_step), mode="loss")
        meter.close()
        assert all(parameter.grad is None for parameter in model.parameters())
        assert not any(module._forward_hooks for module in model.modules())
        sum(value for key, value in losses.items() if "loss" in key).backward()
        return meter.norms, model

    (one, _), (two, _) = measured(1), measured(2)
    assert set(one) == {"loss_cls", "loss_bbox", "loss_dfl", "loss_ld_main", "loss_kd_main"}
    assert all(norm > 0 for norm in one.values())
    assert two.pop("loss_ld_main") == pytest.approx(2 * one.pop("loss_ld_main"), rel=1e-5)
    assert two == pytest.approx(one, rel=1e-5)


def test_pictures_at_the_start_at_intervals_and_at_the_end(explained: Path) -> None:
    names = [f"epoch_{epoch}_image_{image}" for epoch in (0, 2, 3) for image in (1, 2)]
    assert pictures(explained) == sorted(f"{name}_{kind}.png" for name in names for kind in ("regions", "edges"))
    for path in (explained / "pictures").iterdir():
        height, width = cv2.imread(str(path)).shape[:2]
        assert 300 < height < 2000
        assert 900 < width < 2000


def test_resume_draws_no_start(tiny_config: Path, teacher: tuple[Path, Path], explained: Path, tmp_path: Path) -> None:
    shutil.copytree(explained, tmp_path / "run", symlinks=True, ignore=shutil.ignore_patterns("pictures", "2*"))
    config = distilled(tiny_config, teacher, cache=tmp_path / "cache", images=1)
    (tmp_path / "run" / "last_checkpoint").write_text(str(tmp_path / "run" / "epoch_3.pth"), encoding="utf-8")
    train(config, work_dir=tmp_path / "run", resume=True, overrides={**OVERRIDES, "train_cfg.max_epochs": 5})
    assert {name.split("_image")[0] for name in pictures(tmp_path / "run")} == {"epoch_4", "epoch_5"}


def test_iterations_and_images_without_ground_truth(
    tiny_config: Path, teacher: tuple[Path, Path], squares: Path, tmp_path: Path
) -> None:
    document = json.loads((squares / "train.json").read_text(encoding="utf-8"))
    document["annotations"] = document["annotations"][-1:]  # of image 10: none among the first ten
    (tmp_path / "empty.json").write_text(json.dumps(document), encoding="utf-8")
    config = distilled(tiny_config, teacher, cache=tmp_path / "cache", interval=None, images=1)
    config.train_cfg = {"type": "IterBasedTrainLoop", "max_iters": 5}
    config.train_dataloader.dataset.ann_file = str(tmp_path / "empty.json")
    overrides = {**OVERRIDES, "log_level": "ERROR", "log_processor.by_epoch": False}
    build_runner(config, work_dir=tmp_path, overrides={**overrides, "default_hooks.checkpoint.by_epoch": False}).train()
    # A quarter of five, rounded up, is two.
    assert pictures(tmp_path) == [f"iter_{count}_image_1_regions.png" for count in (0, 2, 4, 5)]
    for row in scalars(tmp_path):
        assert sum(row[f"share_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)
        assert sum(row[f"grad_{part}"] for part in PARTS) == pytest.approx(1, abs=1e-6)


def test_a_detector_without_a_teacher_is_left_alone(build_detector: Callable[..., Any]) -> None:
    hook = ExplainDistillation()
    runner: Any = SimpleNamespace(model=build_detector("gfl"), iter=0, epoch=0)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0, outputs={})
    hook.after_train_epoch(runner)


def test_added_once_to_distilled_configs(tiny_config: Path) -> None:
    config = load_config(tiny_config)
    add_explanation(config)
    add_explanation(config)
    assert [dict(hook) for hook in config.custom_hooks] == [{"type": "ExplainDistillation"}]
    config.custom_hooks = [{"type": "EMAHook"}, {"type": ExplainDistillation, "images": 0}]
    add_explanation(config)
    assert len(config.custom_hooks) == 2
    assert issubclass(ExplainDistillation, Hook)
