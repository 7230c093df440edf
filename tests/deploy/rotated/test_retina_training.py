"""Rotated-LD's published recipes and the default one on a folder in DOTA's format; AP between two of its models."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from ld_deploy.checkpoint import load_model, read_checkpoint
from ld_deploy.config import load_config
from ld_deploy.landscape import Side, landscape
from ld_deploy.rotated.boxes import corners
from ld_deploy.rotated.split import split_dota
from ld_deploy.train import evaluate, train

CONFIGS = Path(__file__).parents[3] / "configs" / "rotated"
STUDENTS = sorted(path.stem for path in CONFIGS.glob("ld_*.py"))
TERMS = {
    "default": {"loss_cross_bkd_full", "loss_cross_ld_teacher_score"},
    "published": {"loss_ld_main_and_vlr", "loss_kd_main_and_vlr"},
}


def scalars(work_dir: Path) -> dict[str, list[float]]:
    """By name, what was logged of each step."""
    (log,) = work_dir.glob("*/vis_data/scalars.json")
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if "loss" in row]
    return {name: [row[name] for row in steps if name in row] for name in steps[0]}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five tiles of two images; some have no object, and one a difficult one alone."""
    root = tmp_path_factory.mktemp("dota")
    for name in ("images", "labelTxt"):
        (root / "source" / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    objects = [
        "10 10 50 20 46 36 6 26 plane 0\n60 80 90 80 90 92 60 92 helicopter 0\n",
        "70 12 84 20 70 44 56 36 helicopter 0\n100 100 126 100 126 112 100 112 plane 1\n",
    ]
    for name, width, text in (("a", 96, objects[0]), ("b", 160, objects[1])):
        image = rng.integers(0, 255, (96 if name == "a" else 128, width, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "source" / "images" / f"{name}.png"), image)
        (root / "source" / "labelTxt" / f"{name}.txt").write_text(text, encoding="utf-8")
    split_dota(root / "source" / "images", root / "source" / "labelTxt", root, size=96, overlap=32)
    return root


def tiny(name: str, tiles: Path, folder: Path, **teacher: str) -> Path:
    """A config of the repository with a network of a few channels, on the tiles."""
    config = load_config(CONFIGS / f"{name}.py")
    model = config.model
    small = {"base_channels": 8, "stem_channels": 8, "frozen_stages": -1, "norm_eval": False, "init_cfg": None}
    model.backbone.update(depth=18, **small)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=32)
    model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1)
    if teacher:
        model.teacher = teacher
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=f"{tiles}/", ann_file="labelTxt", data_prefix={"img": "images"})
        for step in loader.dataset.pipeline:
            if step.type == "Resize":
                step.scale = (96, 96)
    config.train_cfg.max_epochs = 1
    config.default_hooks.logger.interval = 1
    config.log_level = "ERROR"
    path = folder / f"{name}.py"
    config.dump(str(path))
    return path


@pytest.fixture(scope="module")
def teacher(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("teacher")
    config = tiny("retina_r34_dota_gwd_2x", tiles, folder)
    torch.manual_seed(1)
    state = load_model(load_config(config), None).state_dict()
    torch.save({"state_dict": state, "meta": {}}, folder / "teacher.pth")
    return {"config": str(config), "checkpoint": str(folder / "teacher.pth")}


@pytest.mark.parametrize("name", STUDENTS)
def test_training_and_its_checkpoint(name: str, tiles: Path, teacher: dict[str, str], tmp_path: Path) -> None:
    config = tiny(name, tiles, tmp_path, **teacher)
    checkpoint = train(config, work_dir=tmp_path / "run")
    assert checkpoint.name == "best.pth"
    logged = scalars(tmp_path / "run")
    steps = logged["loss"]
    assert len(steps) >= 2
    recipe = "published" if name.endswith("published") else "default"
    fine = {"loss_im_fine_grained"} if "fine_grained" in name else set()
    for term in {"loss_cls", "loss_bbox"} | TERMS[recipe] | fine:
        assert len(logged[term]) == len(steps)
        assert all(np.isfinite(logged[term]))
        assert max(logged[term]) > 0
    state = read_checkpoint(checkpoint)["state_dict"]
    assert not any("teacher" in key for key in state)
    model = load_model(load_config(config), checkpoint)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, state[key])
    metrics = evaluate(config, checkpoint, work_dir=tmp_path / "eval")
    assert {"dota/AP", "dota/AP50", "dota/AP75"} <= set(metrics)


def test_landscape_by_the_metric_of_rotated_boxes(tiles: Path, tmp_path: Path) -> None:
    """Truth is every other box that a random model finds: its AP is far from 0 and from 1."""
    config = Config.fromfile(tiny("retina_r18_dota_gwd_1x", tiles, tmp_path))
    config.model.test_cfg.update(nms_pre=100, pre_nms_top_k=100, max_per_img=20)
    sides = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        model = load_model(config, None)
        with torch.no_grad():
            model.bbox_head.retina_cls.weight.normal_(0, 0.2)
            model.bbox_head.retina_cls.bias.fill_(-2.5)
        torch.save({"state_dict": model.state_dict(), "meta": {}}, tmp_path / f"{seed}.pth")
        sides.append((tmp_path / f"{seed}.pth", model))
    dataset = DATASETS.build({**config.test_dataloader.dataset, "test_mode": True})
    (tmp_path / "labelTxt").mkdir()
    for index in range(len(dataset)):
        with torch.no_grad():
            found = sides[0][1].test_step(pseudo_collate([dataset[index]]))[0].pred_instances
        lines = [
            " ".join(f"{number:.2f}" for number in corners(box).flatten().tolist())
            + f" {dataset.metainfo['classes'][label]} 0\n"
            for box, label in zip(found.bboxes[::2], found.labels[::2].tolist(), strict=True)
        ]
        name = Path(dataset.get_data_info(index)["img_path"]).stem
        (tmp_path / "labelTxt" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
    config.test_dataloader.dataset.ann_file = str(tmp_path / "labelTxt")
    config.dump(str(tmp_path / "truth.py"))

    a, b = (Side(tmp_path / "truth.py", path) for path, _ in sides)
    first, second = landscape(a, b=b, mixes=(0, 1))
    own = [evaluate(side.config, side.checkpoint, work_dir=tmp_path / "eval") for side in (a, b)]
    for curve, place in ((first, 0), (second, 1)):
        values = curve.ap[place], curve.ap50[place], curve.ap75[place]
        assert values == tuple(own[place][f"dota/{name}"] for name in ("AP", "AP50", "AP75"))
    assert 0.2 < first.ap[0] < 0.95
    assert first.ap[1] < first.ap[0]
