"""`--json` of the commands that train: standard output is one JSON document, whatever the libraries print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ld_deploy.train import train
from tests.json_output import json_of

if TYPE_CHECKING:
    from tests.conftest import DemoRun


@pytest.fixture(scope="module")
def trained(tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tiny_config, work_dir=tmp_path_factory.mktemp("trained"), overrides={"log_level": "ERROR"})


@pytest.fixture
def distilled(tiny_config: Path, trained: Path, tmp_path: Path) -> Path:
    path = tmp_path / "distilled.py"
    term = "dict(type='LocalizationKD', region='main', weight=1, temperature=10)"
    teacher = f"dict(config={str(tiny_config)!r}, checkpoint={str(trained)!r})"
    path.write_text(
        f"_base_ = {str(tiny_config)!r}\nmodel = dict(type='DistilledDetector', teacher={teacher}, distill=[{term}])\n",
        encoding="utf-8",
    )
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_train(capfd: pytest.CaptureFixture[str], distilled: Path) -> None:
    found = json_of(capfd, "train", distilled, "--work-dir", "run")
    assert found == {"config": str(distilled), "checkpoint": str(Path("run", "best.pth").absolute())}
    assert Path(found["checkpoint"]).is_file()


def test_eval(capfd: pytest.CaptureFixture[str], tiny_config: Path, trained: Path) -> None:
    found = json_of(capfd, "eval", tiny_config, trained, "--split", "val", "-o", "ap.json")
    assert found == json.loads(Path("ap.json").read_text(encoding="utf-8"))
    assert found["split"] == "val"
    assert 0 <= found["ap"] <= found["ap50"] <= 1


def test_publish(capfd: pytest.CaptureFixture[str], tiny_config: Path, trained: Path) -> None:
    found = json_of(capfd, "publish", tiny_config, trained, "-o", "published")
    assert [Path(found["published"])] == list(Path("published").iterdir())


def test_compare(capfd: pytest.CaptureFixture[str], tiny_config: Path, trained: Path) -> None:
    teacher = f"dict(config={str(tiny_config)!r}, checkpoint={str(trained)!r})"
    text = f"student = {str(tiny_config)!r}\nteacher = {teacher}\nrows = [dict(name='alone')]\n"
    Path("comparison.py").write_text(text, encoding="utf-8")
    found = json_of(capfd, "compare", "comparison.py", "--work-dir", "runs")
    assert [row["name"] for row in found["rows"]] == ["alone"]
    assert Path(found["output"]).is_file()
    assert Path(found["picture"]).is_file()


def test_bench_train(capfd: pytest.CaptureFixture[str], distilled: Path) -> None:
    options = ("--steps", 1, "--seconds", 0.1, "--size", "64x64", "--batch-size", 1, "-o", "bench_train.json")
    found = json_of(capfd, "bench-train", distilled, *options)
    assert found == json.loads(Path("bench_train.json").read_text(encoding="utf-8"))
    assert found["spans"]["distilled_step"]["n"] == 1


def test_landscape(capfd: pytest.CaptureFixture[str], tiny_config: Path, trained: Path) -> None:
    found = json_of(capfd, "landscape", *(tiny_config, trained) * 2, "--steps", 2, "-o", "landscape.json")
    assert found["mix"] == [0, 1]
    assert Path(found["picture"]).is_file()


def test_demo(capfd: pytest.CaptureFixture[str], demo_run: DemoRun) -> None:
    configs = Path(__file__).parents[2] / "configs" / "demo"
    found: Any = json_of(capfd, "demo", "--scale", "tiny", "--configs", configs, "-o", demo_run.output)
    assert Path(found["report"]).is_file()
    assert {"bench", "export_ld_student"} & set(found["stages"])
