"""Outputs are whole or not there; what was there before survives a failure."""

import errno
import os
from pathlib import Path

import pytest

from ld_runtime.errors import LdDeployError
from ld_runtime.files import check_writable, write_text, written_whole


def test_write_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.json"
    write_text(path, "é")
    assert path.read_bytes() == "é".encode()
    write_text(path, "again")
    assert path.read_text() == "again"
    assert list(path.parent.iterdir()) == [path]


def test_the_temporary_name_keeps_the_suffix_and_is_hidden(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.onnx") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".onnx"
        assert temporary.name.startswith(".")
        temporary.write_bytes(b"1")


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def full(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(text[:2].encode(encoding))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(LdDeployError, match=r"cannot write .*a\.json: No space left on device"):
        write_text(path, "after")
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_whether_it_can_be_written_is_known_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    check_writable(path)
    assert list(path.parent.iterdir()) == []
    path.write_text("before")
    check_writable(path)
    assert path.read_text() == "before"
    with pytest.raises(LdDeployError, match=r"cannot write .*new: it is a folder"):
        check_writable(path.parent)
    with pytest.raises(LdDeployError, match=r"cannot write .*b\.json: "):
        check_writable(path / "b.json")


def test_a_block_that_fails_writes_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with written_whole(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
