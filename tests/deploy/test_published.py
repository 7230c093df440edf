"""The table of what was published and what was measured: read from texts and JSON alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ld_deploy.published import (
    Measured,
    Published,
    measured_cell,
    published_cell,
    published_of,
    read_rows,
    title_of,
)
from ld_runtime.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
ROW = (
    "# A row, of two models. Published AP 42.1.\npublished = dict(ap=0.421, ap50=0.6, on='COCO val2017', source='X')\n"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Configs: a row, one that was not published, one that says nothing, and a result of the first and the third."""
    for name, text in {
        "ld/r101.py": ROW,
        "ld/r18.py": "# The default.\n_base_ = './r101.py'\npublished = None\n",
        "bccd/student.py": "# Mine: 1.5 wide. More.\n_base_ = '../ld/r101.py'\n",
        "bccd/teacher.py": "# Nothing is known of it.\n",
        "_base_/gfl.py": "x = 1\n",
    }.items():
        path = tmp_path / "configs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    results = tmp_path / "results"
    results.mkdir()
    rows = [
        {"config": "configs/bccd/student.py", "ap": ap, "seed": seed, "split": "test"}
        for seed, ap in enumerate((0.5, 0.52, 0.54))
    ]
    rows.append({"config": "./configs/bccd/student.py", "ap": 0.6, "split": "val"})
    (results / "bccd.json").write_text(json.dumps({"machine": {"config": "x"}, "a": [{"rows": rows}]}))
    (results / "other.json").write_text(json.dumps({"config": "configs/ld/r101.py", "ap": 0.419, "on": {"ap": {}}}))
    (results / "none.json").write_text(json.dumps([{"config": "somewhere", "ap": {"PyTorch": 0.5}}, 3, None]))
    return tmp_path


def test_rows_are_the_published_and_the_measured(repository: Path) -> None:
    rows = read_rows(repository / "configs", repository / "results")
    assert [row.config for row in rows] == ["configs/bccd/student.py", "configs/ld/r18.py", "configs/ld/r101.py"]
    student, default, published = rows
    assert student.title == "Mine: 1.5 wide"
    assert student.published is None  # what it inherits is the row's, not its own
    test, val = student.measured
    assert (test.split, test.ap, test.files) == ("test", (0.5, 0.52, 0.54), ("bccd.json",))
    assert test.mean == pytest.approx(0.52)
    assert test.deviation == pytest.approx(0.02)
    assert (val.split, val.ap, val.deviation) == ("val", (0.6,), None)
    assert (default.published, default.measured) == (None, ())
    assert published.title == "A row, of two models"
    assert published.published == Published(ap=0.421, ap50=0.6, on="COCO val2017", source="X")
    assert published.measured == (Measured("test", (0.419,), ("other.json",)),)


def test_cells(repository: Path) -> None:
    student, default, published = read_rows(repository / "configs", repository / "results")
    assert (published_cell(student), measured_cell(student)) == ("-", "52.0 ± 2.0 (3 seeds), 60.0 val")
    assert (published_cell(default), measured_cell(default)) == ("-", "-")
    assert (published_cell(published), measured_cell(published)) == ("42.1", "41.9")


def test_another_split_is_named() -> None:
    from ld_deploy.published import Row

    for on, cell in (("COCO test-dev", "47.1 test-dev"), ("VOC2007 test", "47.1 VOC2007 test")):
        assert published_cell(Row("x", "x", Published(ap=0.471, on=on, source="x"))) == cell
    assert published_cell(Row("x", "x", Published(on="COCO val2017", source="x"))) == "-"


@pytest.mark.parametrize(
    "value",
    [
        "{'ap': 0.4}",
        "dict(ap=0.4)",
        "dict(ap=40.1, on='x', source='x')",
        "dict(ap=True, on='x', source='x')",
        "dict(map=0.4, on='x', source='x')",
        "dict(ap=base.ap, on='x', source='x')",
        "dict(ap=0.4, on=1, source='x')",
    ],
)
def test_what_is_not_in_the_form_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match=r"mine.py: published must be None, or dict"):
        published_of(f"published = {value}\n", name="mine.py")


def test_texts() -> None:
    assert published_of("ap = 1\n", name="x") == (False, None)
    assert published_of("published = None\n", name="x") == (True, None)
    text = "published = dict(_delete_=True, on='x', source='y')\n"
    assert published_of(text, name="x") == (True, Published(on="x", source="y"))
    assert title_of("# Over\n# two lines, of R101. And\n# more.\nx = 1\n# no\n") == "Over two lines, of R101"
    assert title_of("x = 1\n") == ""


def test_mistakes_are_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*nowhere.*--configs"):
        read_rows(repository / "nowhere", repository / "results")
    with pytest.raises(ConfigError, match=r"no folder .*nowhere.*--results"):
        read_rows(repository / "configs", repository / "nowhere")
    (repository / "results" / "renamed.json").write_text(json.dumps({"config": "configs/gone.py", "ap": 0.5}))
    with pytest.raises(DataError, match=r"renamed.json .* configs/gone.py"):
        read_rows(repository / "configs", repository / "results")
    (repository / "results" / "renamed.json").write_text("{")
    with pytest.raises(DataError, match=r"renamed.json is no JSON"):
        read_rows(repository / "configs", repository / "results")
    for folder in ("empty", "results_of_none"):
        (tmp_path / folder).mkdir()
    with pytest.raises(ConfigError, match="no config in"):
        read_rows(tmp_path / "empty", tmp_path / "results_of_none")


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {"COLUMNS": "200", "PATH": "", "NO_COLOR": "1", "TERM": "dumb"}
    program = (
        "import sys\nfrom ld_runtime.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    assert 'torch' not in sys.modules and 'mmengine' not in sys.modules"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "published", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        check=False,
    )


def test_command_prints_and_writes_the_table_without_torch(repository: Path) -> None:
    shown = command("--results", "results", "-o", "table.json", cwd=repository)
    assert shown.returncode == 0, shown.stderr
    for cell in ("bccd/student.py", "Mine: 1.5 wide", "42.1", "52.0 ± 2.0 (3 seeds), 60.0 val"):
        assert cell in shown.stdout
    written = json.loads((repository / "table.json").read_text(encoding="utf-8"))
    printed = command("--results", "results", "--json", cwd=repository)
    assert json.loads(printed.stdout) == {"configs": written}
    assert written[0]["measured"][0]["mean"] == pytest.approx(0.52)
    assert written[2]["published"]["ap"] == 0.421


def test_command_in_this_repository() -> None:
    shown = command("--json", cwd=ROOT)
    assert shown.returncode == 0, shown.stderr
    rows = {row["config"]: row["published"] for row in json.loads(shown.stdout)["configs"]}
    assert rows["configs/ld/ld_r50_r101_coco_1x_published.py"]["ap"] == 0.421
    assert rows["configs/voc/ld_r18_r101_voc_main_published.py"]["on"] == "VOC2007 test"
    assert rows["configs/ld/ld_r18_r101_coco_1x.py"] is None
