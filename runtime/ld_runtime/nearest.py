"""The nearest name or path, for errors that suggest it."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# File names of a folder are alike by nature: a suggestion must be closer than among other names.
PATH_CUTOFF = 0.75
# Of a folder that may hold millions.
MAX_ENTRIES = 5000


def nearest(name: str, choices: Iterable[str]) -> str:
    """`; did you mean 'bench'?`, or nothing where no choice is near. To be put behind a message."""
    return _sentence(_closest(name, {choice: choice for choice in choices}))


def nearest_path(path: str | Path, *, tree: str | Path | None = None) -> str:
    """`; did you mean 'configs/ld/a.py'?` for a path that does not exist, or nothing where none is near.

    Each part that is missing, folders too, is replaced by the nearest entry that has a suffix like it.

    Args:
        path: as it was given.
        tree: a folder; a file of that name anywhere below it is nearer than one of a like name where the path leads.
    """
    path = Path(path)
    found = _corrected(path)
    if tree is not None and not os.path.lexists(path) and (found is None or Path(found).name != path.name):
        below = sorted(islice(Path(tree).rglob(f"*{path.suffix}"), MAX_ENTRIES), reverse=True)
        files = {file.name: str(file) for file in below}
        found = files.get(path.name) or found or _closest(path.name, files, cutoff=PATH_CUTOFF)
    return _sentence(found)


def _sentence(found: str | None) -> str:
    return f"; did you mean {found!r}?" if found else ""


def _closest(name: str, choices: dict[str, str], *, cutoff: float = 0.6) -> str | None:
    """What stands under the nearest key, whatever its case."""
    from difflib import get_close_matches  # not for nothing at each start

    by_lower = {key.lower(): choice for key, choice in choices.items()}
    found = get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def _corrected(path: Path) -> str | None:
    """The nearest path that exists; None for one that exists itself."""
    place = Path(path.anchor)
    for part in path.parts[len(place.parts) :]:
        if not os.path.lexists(place / part):
            found = _closest(part, _alike(place, part), cutoff=PATH_CUTOFF)
            if found is None:
                return None
            part = found  # noqa: PLW2901 - what it should have been
        place /= part
    return None if place == path else str(place)


def _alike(folder: Path, name: str) -> dict[str, str]:
    """Entries of a folder by what is compared with the name: without their suffix where the name has none."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, MAX_ENTRIES)]
    except OSError:
        return {}
    suffix = Path(name).suffix
    if not suffix:
        return {Path(one).stem: one for one in sorted(names, reverse=True)}
    return {one: one for one in sorted(names) if _closest(suffix, {Path(one).suffix: one})}
