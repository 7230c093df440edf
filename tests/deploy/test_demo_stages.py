"""Stages are done once, and again when what they were made from or what they left has changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ld_deploy.demo.stages import Outcome, StageBook, key_of
from ld_runtime.errors import DataError


class Work:
    """Counts how often it was done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.times = 0

    def __call__(self) -> Outcome:
        self.times += 1
        (self.folder / "made.txt").write_text("whole")
        return Outcome("made", {"value": 0.25, "list": [1, None]}, ("made.txt",))


def test_what_is_there_is_not_done_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    first, done_now = StageBook(tmp_path).run("one", key="k", work=work)
    assert done_now
    again, done_now = StageBook(tmp_path).run("one", key="k", work=work)
    assert not done_now
    assert work.times == 1
    assert again == first
    assert again.content == {"value": 0.25, "list": [1, None]}
    assert again.files == ("made.txt",)


def test_another_key_or_a_lost_file_does_it_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    for key, times in (("k", 1), ("other", 2), ("k", 3), ("k", 3)):
        StageBook(tmp_path).run("one", key=key, work=work)
        assert work.times == times
    (tmp_path / "made.txt").unlink()
    StageBook(tmp_path).run("one", key="k", work=work)
    assert work.times == 4


def test_a_stage_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Outcome:
        raise KeyboardInterrupt

    book = StageBook(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        book.run("one", key="k", work=fail)
    assert not book.path("one").exists()
    assert book.results == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"key": "k"}', '{"key": "k", "files": 3}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    book = StageBook(tmp_path)
    book.path("one").parent.mkdir()
    book.path("one").write_text(text)
    with pytest.raises(DataError, match=r"stages/one\.json is damaged.*delete it"):
        book.run("one", key="k", work=Work(tmp_path))


def test_elapsed_counts_earlier_runs(tmp_path: Path) -> None:
    StageBook(tmp_path).run("one", key="k", work=Work(tmp_path))
    path = tmp_path / "stages" / "one.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, "elapsed_s": 12.5}))
    book = StageBook(tmp_path)
    assert book.elapsed_s() == 0
    book.run("one", key="k", work=Work(tmp_path))
    assert book.elapsed_s() == 12.5


def test_keys() -> None:
    assert key_of({"a": 1, "b": [2]}) == key_of({"b": [2], "a": 1})
    assert key_of({"a": 1}) != key_of({"a": 2})
    assert key_of({"a": 1}) != key_of({"b": 1})
