"""Names that nearly exist, errors of usage, the version and `doctor`, as the command line gives them."""

import json
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import version
from pathlib import Path

import pytest

from ld_runtime import cli
from ld_runtime.bench_report import peak_rss_mb
from ld_runtime.engines import ModelSpec, open_engine
from ld_runtime.errors import ConfigError, EngineError, InputError
from ld_runtime.media import image_names, open_video
from ld_runtime.nearest import nearest, nearest_path
from ld_runtime.preprocess import decode


def test_nearest() -> None:
    assert nearest("benhc", ["detect", "bench"]) == "; did you mean 'bench'?"
    assert nearest("RBC", ["wbc", "rbc"]) == "; did you mean 'rbc'?"
    assert nearest("xyz", ["detect", "bench"]) == ""
    assert nearest("xyz", []) == ""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with configs, images and a model."""
    files = ("configs/ld/ld_r18_r101_coco_1x.py", "configs/gfl/gfl_r18_coco_1x.py", "images/img_001.png")
    for name in (*files, "student.onnx", "student.engine.json", "clip.mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("configs/ld/ld_r18_r101_coco.py", "configs/ld/ld_r18_r101_coco_1x.py"),
        ("config/ld/ld_r18_r101_coco_1x.py", "configs/ld/ld_r18_r101_coco_1x.py"),  # the folder is wrong
        ("confgs/gl/gfl_r18_coco_1x.py", "configs/gfl/gfl_r18_coco_1x.py"),  # two folders are
        ("student.onx", "student.onnx"),
        ("student", "student.onnx"),
        ("Student.ONNX", "student.onnx"),
        ("image", "images"),
        ("student.engine", ""),  # a JSON is no engine
        ("last.onnx", ""),
        ("student.onnx", ""),  # it is there
        ("student.onnx/x.png", ""),  # a file is no folder
        ("", ""),
    ],
)
def test_nearest_path(tree: Path, path: str, found: str) -> None:
    assert nearest_path(path) == (f"; did you mean {found!r}?" if found else "")
    absolute = nearest_path(tree / path)
    assert absolute == (f"; did you mean {str(tree / found)!r}?" if found else "")


def test_nearest_path_below_a_tree(tree: Path) -> None:
    known = "; did you mean 'configs/ld/ld_r18_r101_coco_1x.py'?"
    for path in ("ld_r18_r101_coco_1x.py", "configs/gfl/ld_r18_r101_coco_1x.py", "ld_r18_r101_coc_1x.py"):
        assert nearest_path(path) != known
        assert nearest_path(path, tree="configs") == known
    assert nearest_path("configs/ld/ld_r18_r101_coco.py", tree="configs") == known
    assert not nearest_path("other.py", tree="configs")
    assert not nearest_path("other.py", tree="no_such_folder")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.onnx@openvin", "no backend is called 'openvin' in 'a.onnx@openvin'; did you mean 'openvino'? there are"),
        ("a.onnx@openvino:bf1", "got 'bf1' in 'a.onnx@openvino:bf1'; did you mean 'bf16'? other precisions"),
        ("a.onnx@openvino:fp16", "got 'fp16' in 'a.onnx@openvino:fp16'; other precisions lie in the file"),
    ],
)
def test_what_runs_a_file_is_suggested(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        ModelSpec.parse(text)
    assert message in str(refused.value)


def test_files_are_suggested(tree: Path) -> None:
    for call, given, found in (
        (open_engine, "studnt.onnx", "student.onnx"),
        (open_engine, "student.onx", "student.onnx"),
        (image_names, "imges", "images"),
        (image_names, "images/im_001.png", "images/img_001.png"),
        (decode, "images/im_001.png", "images/img_001.png"),
        (open_video, "clp.mp4", "clip.mp4"),
    ):
        with pytest.raises((EngineError, InputError)) as refused:
            call(given)
        assert given in str(refused.value)
        assert f"; did you mean {found!r}?" in str(refused.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("detct", "there is no command 'detct'; did you mean 'detect'? see `ld-deploy --help`"),
        ("xyz", "there is no command 'xyz'; see `ld-deploy --help`"),
        ("--hlp", "there is no option '--hlp'; did you mean '--help'? see `ld-deploy --help`"),
        ("bench a --imges x", "there is no option --imges; did you mean '--images'? see `ld-deploy bench --help`"),
        ("bench a --zzz", "there is no option --zzz; see `ld-deploy bench --help`"),
        ("bench", "missing argument 'models'; see `ld-deploy bench --help`"),
        ("bench a --images", "option '--images' requires an argument; see `ld-deploy bench --help`"),
        (
            "bench a --images x --nms natve",
            "invalid value for '--nms': 'natve' is not one of 'native', 'graph'; did you mean 'native'? "
            "see `ld-deploy bench --help`",
        ),
        ("doctor x", "got unexpected extra argument(s) (x); see `ld-deploy doctor --help`"),
    ],
)
def test_an_error_of_usage_is_one_line(capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(line.split())
    captured = capsys.readouterr()
    assert stopped.value.code == 2
    assert (captured.out, captured.err) == ("", f"error: {message}\n")


def test_an_error_of_usage_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["bench", "--json"])
    assert json.loads(capsys.readouterr().out)["error"]["message"].startswith("missing argument 'models'")


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_settings: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ld_runtime.bench_report.machine", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert stopped.value.code == 130


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--version"])
    assert capsys.readouterr().out == f"ld-deploy {version('ld-deploy')}\n"


def test_a_failed_memory_child_is_an_error_of_ours(tmp_path) -> None:
    with pytest.raises(EngineError, match=r"memory of .*none\.onnx ended with 1: .*none\.onnx"):
        peak_rss_mb(ModelSpec(tmp_path / "none.onnx"), device="cpu", nms=None, image=tmp_path / "a.png")


def test_doctor_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor", "--json"])
    content = json.loads(capsys.readouterr().out)
    assert stopped.value.code == 0
    parts = {one["part"]: one for one in content["parts"]}
    assert parts["OpenCV"]["installed"].startswith("opencv-python-headless ")
    assert all((one["installed"] is None) == (one["command"] is not None) for one in content["parts"])
    assert content["broken"] == []


def doctor_parts(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str | None]]:
    capsys.readouterr()
    with pytest.raises(SystemExit):
        cli.main(["doctor", "--json"])
    return {one["part"]: one for one in json.loads(capsys.readouterr().out)["parts"]}


def test_doctor_tells_a_compiled_mmcv_from_mmcv_lite(capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mmcv"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('doctor imports no mmcv')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mmcv", raising=False)
    part = doctor_parts(capsys)["compiled mmcv"]
    assert part["installed"] is None
    assert "mim install mmcv==2.1.0" in str(part["command"])
    assert "RoIAlign" in str(part["gives"])
    (package / f"_ext{EXTENSION_SUFFIXES[0]}").touch()
    part = doctor_parts(capsys)["compiled mmcv"]
    assert (part["installed"], part["command"]) == ("mmcv", None)


def test_doctor_finds_the_browser_of_the_page_tests(capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    part = doctor_parts(capsys)["Chromium"]
    assert (part["installed"], part["command"]) == (None, "make browser")
    downloaded = tmp_path / "playwright" / "chromium_headless_shell-1200"
    downloaded.mkdir(parents=True)
    assert doctor_parts(capsys)["Chromium"]["installed"] == str(downloaded)
    (tmp_path / "chromium").touch(0o755)
    part = doctor_parts(capsys)["Chromium"]
    assert (part["installed"], part["command"]) == (str(tmp_path / "chromium"), None)


def test_doctor_ends_with_1_when_something_is_broken(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["doctor"])
    assert stopped.value.code == 1
    assert "broken: cv2 cannot be imported" in " ".join(capsys.readouterr().out.split())
