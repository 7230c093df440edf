"""`--set KEY=VALUE` on the command line."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from ld_runtime.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def parse_overrides(pairs: Sequence[str]) -> dict[str, Any]:
    """Dotted config keys and their values: Python literals, or text where they are none.

    Raises:
        ConfigError: A pair has no `=`.
    """
    overrides: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"--set needs KEY=VALUE, got {pair!r}")
        try:
            overrides[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            overrides[key] = text
    return overrides
