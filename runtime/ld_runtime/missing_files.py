"""Files that `ld-deploy recommend --build` makes of those that were given, so that they can be measured too.

What makes them is the export side's, found by an entry point: the runtime imports none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Protocol

from ld_runtime.errors import BackendMissingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ld_runtime.engines import ModelSpec
    from ld_runtime.recommendation import NotTried

MAKERS_GROUP = "ld_deploy.file_makers"


@dataclass(frozen=True)
class MakeSettings:
    """What is to be made, and of what.

    Args:
        folder: for the files.
        device: `cpu`, `cuda` or `cuda:N`, which they are for.
        calibration: folder or glob of images that INT8 is calibrated on; None: no INT8 is made.
        count: calibrate on so many of them, evenly taken.
    """

    folder: Path
    device: str
    calibration: str | None = None
    count: int = 128


@dataclass(frozen=True)
class MadeFiles:
    """What came of it.

    Args:
        specs: files that are there now, each with what is to run it.
        reused: of them, those that an earlier run had made of the same files.
        not_made: the others, and why.
    """

    specs: tuple[ModelSpec, ...] = ()
    reused: tuple[str, ...] = ()
    not_made: tuple[NotTried, ...] = ()


class Maker(Protocol):
    """Makes files of others."""

    def __call__(self, given: Sequence[ModelSpec], *, settings: MakeSettings, say: Callable[[str], None]) -> MadeFiles:
        """Args: files; settings; told in a line what is done next."""


def find_maker() -> Maker:
    """What makes files here.

    Raises:
        BackendMissingError: The export side or its libraries are not installed.
    """
    missing: str | None = "the entry point of an older install"
    for entry in entry_points(group=MAKERS_GROUP):
        try:
            maker: Maker = entry.load()
        except ImportError as error:
            missing = error.name
        else:
            return maker
    raise BackendMissingError(f"--build needs {missing}, which is not there: pip install 'ld-deploy[export]'")
