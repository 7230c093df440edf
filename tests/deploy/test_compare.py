"""Recipes side by side: rows, runs that are found again, the table."""

from __future__ import annotations

import io
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest
from rich.console import Console

from ld_deploy import compare as module
from ld_deploy.compare import Run, compare, key_of, read_comparison, summarise, write_comparison
from ld_deploy.compare_report import draw, points, table
from ld_deploy.config import load_config
from ld_deploy.train import train
from ld_runtime.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGS = Path(__file__).parents[2] / "configs" / "compare"
ROWS = """
rows = [
    dict(name='alone', seeds=2),
    dict(name='main LD', distill=[dict(type='LocalizationKD', region='main', weight=1, temperature=10)]),
    dict(name='PKD, published', recipe='published', distill=[dict(type='PearsonKD', weight=1)])]
"""


@pytest.fixture(scope="module")
def teacher(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config, work_dir=tmp_path_factory.mktemp("teacher"), overrides={"log_level": "ERROR"})


@pytest.fixture
def comparison(tiny_config: Path, teacher: Path, tmp_path: Path) -> Callable[..., Path]:
    def write(rows: str = ROWS, **changes: str) -> Path:
        values = {
            "student": repr(str(tiny_config)),
            "teacher": f"dict(config={str(tiny_config)!r}, checkpoint={str(teacher)!r})",
        }
        text = "\n".join(f"{key} = {value}" for key, value in {**values, **changes}.items() if value)
        path = tmp_path / "comparison.py"
        path.write_text(f"{text}\n{rows}", encoding="utf-8")
        return path

    return write


def test_comparison_from_training_to_picture(comparison: Callable[..., Path], tmp_path: Path) -> None:
    path, told = comparison(), list[str]()
    runs = compare(path, work_dir=tmp_path / "work", tell=told.append)
    assert [(run.row, run.seed) for run in runs] == [("alone", 0), ("main LD", 0), ("PKD, published", 0), ("alone", 1)]
    assert all(" s)" in line for line in told)
    assert all(0 <= run.test["ap"] <= 1 and run.elapsed_s > 0 for run in runs)
    again = compare(path, work_dir=tmp_path / "work", tell=told.append)
    assert again == runs
    assert all("was there" in line for line in told[4:])

    content = write_comparison(path, runs, output=tmp_path / "result.json")
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == content
    assert [row["name"] for row in content["rows"]] == ["alone", "main LD", "PKD, published"]
    assert content["rows"][0]["seeds"] == 2
    # What `ld-deploy published` reads: the runs without a teacher are those of the student's config.
    alone = [run for run in runs if run.row == "alone"]
    assert [each["ap"] for each in content["measured"]] == [run.test["ap"] for run in alone]
    assert {each["split"] for each in content["measured"]} == {"test"}
    assert 0 <= content["teacher"]["ap"] <= 1
    draw(content, output=tmp_path / "result.png")
    picture = cv2.imread(str(tmp_path / "result.png"))
    assert picture is not None
    assert picture.shape[1] > 600


def test_only_some_rows_and_seeds(
    comparison: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, int]] = []

    def record(row: Any, *, seed: int, work_dir: Path) -> tuple[Run, bool]:
        done.append((row.name, seed))
        return Run(row.name, seed, {"ap": 0.0}, {"ap": 0.0}, 1.0, "key"), True

    monkeypatch.setattr(module, "find_or_train", record)
    compare(comparison(), work_dir=tmp_path, only=["LD", "PKD"])
    assert done == [("main LD", 0), ("PKD, published", 0)]
    done.clear()
    compare(comparison(), work_dir=tmp_path, seeds=[1])
    assert done == [("alone", 1)]
    with pytest.raises(ConfigError, match=r"no row of .* has GI in its name"):
        compare(comparison(), work_dir=tmp_path, only=["GI"])


def test_key_changes_with_config_seed_and_teacher(comparison: Callable[..., Path], tmp_path: Path) -> None:
    rows = read_comparison(comparison())
    keys = [key_of(row, seed=0) for row in rows] + [key_of(rows[0], seed=1)]
    other = tmp_path / "other.pth"
    other.write_bytes(b"other weights")
    rows[1].config.model.teacher.checkpoint = str(other)
    changed = tmp_path / "teacher.py"
    changed.write_text(f"_base_ = {rows[1].config.model.teacher.config!r}\nmodel = dict(neck=dict(num_outs=5))\n")
    keys.append(key_of(rows[1], seed=0))
    other.write_bytes(b"again other weights")
    keys.append(key_of(rows[1], seed=0))
    rows[1].config.model.teacher.config = str(changed)
    changed.write_text(changed.read_text() + "another = 1\n")
    keys.append(key_of(rows[1], seed=0))
    assert len(set(keys)) == 7
    assert key_of(read_comparison(comparison())[0], seed=0) == keys[0]


def test_recipe_and_terms_reach_the_config(comparison: Callable[..., Path]) -> None:
    alone, main, published = (row.config.model for row in read_comparison(comparison()))
    assert alone.type == "SingleStageDetector"
    assert (main.type, main.get("recipe"), published.recipe) == ("DistilledDetector", None, "published")
    assert main.distill[0].region == "main"


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        ("rows = [dict(name='a', weights=1)]", {}, "a row has name and may have"),
        ("rows = [dict(distill=[])]", {}, "a row has name and may have"),
        ("rows = [dict(name='a b'), dict(name='a-b')]", {}, "have the same name"),
        (ROWS, {"student": ""}, "it has no student"),
    ],
)
def test_bad_comparisons(comparison: Callable[..., Path], rows: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_comparison(comparison(rows, **changes))


def test_damaged_run_is_named(comparison: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "alone_seed0.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"alone_seed0\.json is damaged"):
        compare(comparison(), work_dir=tmp_path, only=["alone"])


def scored(row: str, *aps: float) -> list[Run]:
    return [
        Run(row, seed, {"ap": ap / 2, "ap50": ap, "ap75": ap}, {"ap": ap, "ap50": ap, "ap75": ap}, 1.0, "key")
        for seed, ap in enumerate(aps)
    ]


def test_summary_is_mean_and_sample_deviation() -> None:
    first, second = summarise([*scored("a", 0.30, 0.32, 0.37), *scored("b", 0.4)])
    assert first["test_ap"]["mean"] == pytest.approx(0.33)
    assert first["test_ap"]["std"] == pytest.approx(statistics.stdev([0.30, 0.32, 0.37]))
    assert first["val_ap"]["mean"] == pytest.approx(0.165)
    assert second["test_ap"]["std"] is None
    assert points(first["test_ap"]) == "33.0 ± 3.6"
    assert points(second["test_ap"]) == "40.0"


def test_table_names_rows_teacher_and_marks_the_best_on_val() -> None:
    runs = [*scored("a", 0.3), *scored("b", 0.4)]
    content = {"rows": summarise(runs), "teacher": {"ap": 0.5, "ap50": 0.6, "ap75": 0.55}}
    shown = table(content)
    assert [row.style for row in shown.rows] == [None, "bold", None]
    stream = io.StringIO()
    Console(width=100, file=stream).print(shown)
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert next(line for line in lines if "b" in line)[3:] == [
        "1",
        "│",
        "20.0",
        "│",
        "40.0",
        "│",
        "40.0",
        "│",
        "40.0",
        "│",
    ]
    assert next(line for line in lines if "teacher" in line)[-6:] == ["50.0", "│", "60.0", "│", "55.0", "│"]


@pytest.mark.parametrize("path", ["bccd.py", "demo.py"])
def test_comparisons_of_this_project_have_every_method(path: str) -> None:
    rows = read_comparison(CONFIGS / path)
    regions = {term.region for row in rows for term in row.config.model.get("distill", []) if term.type == "FeatureKD"}
    assert regions == {"full", "inside_gt", "main", "fine_grained", "foreground_background", "gi", "teacher_score"}
    names = {row.name for row in rows}
    assert {"main LD", "main + VLR LD", "main KD", "BCKD", "CrossKD", "PKD", "GFLv2"} <= names
    headlines = ("baseline", "CrossKD, cut at the end")
    assert [row.seeds for row in rows if row.name in headlines] == [3, 3]
    default = load_config(CONFIGS.parent / "_base_" / "default_recipe.py").default_recipe
    (chosen,) = [row.config.model for row in rows if row.name == headlines[-1]]
    assert chosen.distill == default.distill
