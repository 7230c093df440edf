"""Outputs that are there whole or not at all."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ld_runtime.errors import LdDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to, and renames it when the block ends without an error.

    Args:
        path: where the file is to be. Its folder is made. The temporary name keeps the suffix, which many writers
            choose their format by.

    Raises:
        LdDeployError: The file cannot be written: the disk is full, the folder is read-only. Nothing is left behind,
            and a file that was there before is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise LdDeployError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):  # the error above is the one to tell
            temporary.unlink()


def check_writable(path: str | Path) -> None:
    """Tries whether `path` can be written, before the work that is to be written there. Its folder is made.

    Raises:
        LdDeployError: It cannot. A file that is there is untouched.
    """
    path = Path(path)
    if path.is_dir():
        raise LdDeployError(f"cannot write {path}: it is a folder")
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        temporary.unlink()
    except OSError as error:
        raise LdDeployError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file, whole or not at all.

    Raises:
        LdDeployError: It cannot be written.
    """
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
