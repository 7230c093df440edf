"""Every published row has a config that says what was published, with the published code's constants."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from ld_deploy.published import AP_KEYS, TEXT_KEYS, published_of, title_of
from tests.deploy.config_files import DISTILLED_FILES, METAFILES, ROWS, header_of, name_of, read

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", ROWS, ids=name_of)
def test_config_says_what_was_published(path: Path) -> None:
    header = header_of(path)
    says_so, published = published_of(path.read_text(encoding="utf-8"), name=name_of(path))
    assert says_so
    assert 10 < len(title_of(path.read_text(encoding="utf-8"))) < 120
    if published is None:
        assert "No published row" in header
        assert read(path).published is None
        return
    own = {key: getattr(published, key) for key in (*AP_KEYS, *TEXT_KEYS) if getattr(published, key) is not None}
    assert own == read(path).published.to_dict(), "the base's keys are left: published = dict(_delete_=True, ...)"
    if published.ap is None:
        assert "No published AP" in header
        return
    assert re.search(rf"Published (test-dev )?AP {100 * published.ap:.1f}\b", header)
    if published.ap50 is not None and published.ap75 is not None:
        assert published.ap75 < published.ap50
        assert published.ap < published.ap50
    if "mmdet" in published.source:
        assert re.search(rf"box AP: {100 * published.ap:.1f}\b", METAFILES)


# The published code's constants: (type, region, weight, temperature) of each term.
MAIN = ("LocalizationKD", "main", 0.25, 10)
FULL = (MAIN, ("LocalizationKD", "vlr", 0.25, 10), ("ClassificationKD", "main", 10, 2))
CROSS = (("BinaryClassificationKD", "full", 1, None), ("LocalizationKD", "teacher_score", 68, 1))
BCKD = (("BinaryClassificationKD", "full", 1, None), ("IoULocalizationKD", "score_gap", 4, None))
DEFEAT = (("FeatureKD", "foreground_background", 6, None),)


def rotated_terms(ld: float, kd: float) -> tuple[tuple[str, str, float, int], ...]:
    return tuple(
        (f"Rotated{kind}KD", "main_and_vlr", w, 5) for kind, w in (("Localization", ld), ("Classification", kd))
    )


GIVEN = {
    # path: terms, recipe, images per GPU, epochs
    **{
        f"ld/ld_r{depth}_r101_coco_1x_published": (FULL, "published", n, 12) for depth, n in ((18, 3), (34, 3), (50, 2))
    },
    **{f"ld/ld_r{depth}_r101_coco_1x_main_published": ((MAIN,), "published", 3, 12) for depth in (18, 34, 50)},
    "ld/ld_r18_r50_coco_1x_published": (FULL, "published", 2, 12),
    "ld/ld_r50_r101_coco_1x_gi_published": ((*FULL, ("FeatureKD", "gi", 2, None)), "published", 2, 12),
    "ld/ld_r101_r101dcn_coco_2x_main_published": ((MAIN,), "published", 3, 24),
    "self_ld/ld_r18_r18_coco_1x_published": ((MAIN,), "published", 3, 12),
    "self_ld/ld_r50_r50_coco_1x_published": ((MAIN,), "published", 3, 12),
    "self_ld/ld_x101dcn_x101dcn_coco_1x_published": ((MAIN,), "published", 2, 12),
    **{
        f"feature_imitation/{name}_r50_r101_coco_1x_published": (
            (("FeatureKD", region, 2, None),),
            *("published", 2, 12),
        )
        for name, region in (
            ("fitnets", "full"),
            ("inside_gt", "inside_gt"),
            ("main_region", "main"),
            ("fine_grained", "fine_grained"),
            ("gi", "gi"),
        )
    },
    "feature_imitation/defeat_r50_r101_coco_1x": (DEFEAT, "default", 2, 12),
    "gflv2/ld_gflv2_r50_r101_coco_1x_published": (FULL, "published", 3, 12),
    **{
        f"gflv2/ld_gflv2_{pair}_coco_2x_published": (FULL, "published", 2, 24)
        for pair in ("r101_r101dcn", "x101dcn_r2n101dcn")
    },
    **{
        f"gflv2/ld_gflv2_{pair}_coco_2x_main_published": ((MAIN,), "published", 2, 24)
        for pair in ("r50_r101", "r101_r101dcn", "r101dcn_r2n101dcn", "x101dcn_r2n101dcn", "r2n101dcn_r2n101dcn")
    },
    "heads/ld_atss_r50_r101_coco_1x_published": (
        (MAIN, ("LocalizationKD", "vlr", 0.15, 10), ("ClassificationKD", "main", 10, 2)),
        *("published", 2, 12),
    ),
    "heads/ld_fcos_r50_r101_coco_1x_published": (FULL, "published", 2, 12),
    "heads/ld_retina_r50_r101_coco_1x_published": (
        (
            ("LocalizationKD", "main", 5, 10),
            ("LocalizationKD", {"type": "vlr", "exclude_positives": True}, 0.6, 10),
            ("ClassificationKD", "main", 10, 8),
        ),
        *("published", 2, 12),
    ),
    **{
        f"ablation/temperature_{value}": ((("LocalizationKD", "main", 0.25, value),), "published", 3, 12)
        for value in (1, 5, 15, 20)
    },
    **{
        f"ablation/gamma_{name}": (
            (MAIN, ("LocalizationKD", {"type": "vlr", "gamma": value}, 0.25, 10)),
            *("published", 2, 12),
        )
        for name, value in (("1", 1), ("0_75", 0.75), ("0_5", 0.5), ("0", 0))
    },
    "ablation/main_kd": (FULL[2:], "published", 2, 12),
    "ablation/main_ld_vlr_ld": (FULL[:2], "published", 2, 12),
    "ablation/vlr_kd": ((*FULL, ("ClassificationKD", "vlr", 10, 2)), "published", 2, 12),
    **{
        f"beyond/bckd_{pair}_coco_1x": (BCKD, "published", 2, 12)
        for pair in ("r50_r101", "r34_r101", "r18_r101", "r50_r50")
    },
    **{f"beyond/crosskd_{pair}_coco_1x": (CROSS, "published", 2, 12) for pair in ("r50_r101", "r18_r50", "mnv2_r50")},
    "beyond/crosskd_pkd_r50_r101_coco_1x": ((*CROSS, ("PearsonKD", None, 6, None)), "published", 2, 12),
    **{
        f"beyond/pkd_{pair}_coco_1x": ((("PearsonKD", None, 10, None),), "published", 2, 12)
        for pair in ("r50_r101", "r18_r50", "mnv2_r50")
    },
    **{
        f"voc/ld_{pair}_voc_main_published": ((MAIN,), "published", 3, 4)
        for pair in ("r18_r101", "r50_r101", "r34_r101dcn", "r101_r101dcn")
    },
    "voc/ld_r18_r101_voc_published": (FULL, "published", 3, 4),
    **{
        f"rotated/ld_retina_r18_{name}_published": (rotated_terms(*weights), "published", 1, 12)
        for name, weights in (("r34_dota_gwd_1x", (10, 20)), ("r34_dota_kld_1x", (15, 15)))
    },
    "rotated/ld_retina_r18_r50_dota_gwd_1x_fine_grained_published": (
        (*rotated_terms(30, 30), ("FeatureKD", "fine_grained", 2, None)),
        *("published", 1, 12),
    ),
    "voc/ld_r18_r101_voc_gi_published": ((*FULL, ("FeatureKD", "gi", 2, None)), "published", 3, 4),
}


@pytest.mark.parametrize("path", [path for path in ROWS if path in DISTILLED_FILES], ids=name_of)
def test_published_configs_have_the_published_constants(path: Path) -> None:
    config = read(path)
    lr, images_a_step = (0.0025, 2) if name_of(path).startswith("rotated/") else (0.01, 16)
    assert config.optim_wrapper.optimizer.lr == lr
    assert (config.auto_scale_lr.enable, config.auto_scale_lr.base_batch_size) == (True, images_a_step)
    if config.published is None:
        assert config.model.get("recipe", "default") == "default"
        return
    terms, recipe, images, epochs = GIVEN[name_of(path).removesuffix(".py")]
    read_terms = [
        (each.type, each.get("region"), pytest.approx(each.weight), each.get("temperature"))
        for each in config.model.distill
    ]
    assert read_terms == list(terms)
    assert (config.model.recipe, config.train_dataloader.batch_size) == (recipe, images)
    assert config.train_cfg.max_epochs == epochs
    last = config.param_scheduler[-1]
    assert (last.type, last.end) == ("MultiStepLR", epochs)
    assert last.milestones == {4: [3], 12: [8, 11], 24: [16, 22]}[epochs]
    joint = [each.get("joint_edges", False) for each in config.model.distill if each.type == "LocalizationKD"]
    assert all(joint) if name_of(path).startswith("heads/ld_retina") else not any(joint)
    crossed = {each.get("branch", "own") for each in config.model.distill if each.type != "PearsonKD"}
    assert crossed <= ({"cross"} if "crosskd" in path.name else {"own"})


def test_every_published_student_is_held_to_its_constants() -> None:
    published = {name_of(path).removesuffix(".py") for path in DISTILLED_FILES if path in ROWS and read(path).published}
    assert published == set(GIVEN)
