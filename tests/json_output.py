"""`ld-deploy ... --json` in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ld_runtime import cli

if TYPE_CHECKING:
    import pytest


def json_of(capfd: pytest.CaptureFixture[str], *arguments: object) -> Any:
    """The object that a command prints: all of its standard output, what libraries write past Python too."""
    capfd.readouterr()
    try:
        cli.main([*map(str, arguments), "--json"])
    except SystemExit as stopped:
        captured = capfd.readouterr()
        if stopped.code:
            raise AssertionError(captured.err) from stopped
        return json.loads(captured.out)
    raise AssertionError("a command ends the process")
