"""Completion of `ld-deploy` in bash: commands, and the options of a command. Files are left to the shell."""

from __future__ import annotations

import os
from typing import Any

from ld_runtime.errors import LdDeployError

VARIABLE = "_LD_DEPLOY_COMPLETE"

BASH = f"""\
_ld_deploy() {{
  COMPREPLY=($(COMP_WORDS="${{COMP_WORDS[*]}}" COMP_CWORD=$COMP_CWORD {VARIABLE}=bash_complete ld-deploy 2>/dev/null))
}}
complete -o default -F _ld_deploy ld-deploy
"""


def completions(words: list[str], position: int) -> list[str]:
    """What fits at a position of the line.

    Args:
        words: of the line, the first is `ld-deploy`.
        position: of the word that is being written; behind the last for a new one.

    Returns:
        Commands, options, or nothing where a file may stand: the shell completes those.
    """
    from ld_runtime.cli import SUMMARIES

    begun = words[position] if position < len(words) else ""
    if position == 1:
        return [name for name in SUMMARIES if name.startswith(begun)]
    if not begun.startswith("-") or words[1] not in SUMMARIES:
        return []
    return [name for name in (*_options(words[1]), "--help") if name.startswith(begun)]


def answer() -> list[str]:
    """What fits, by the shell's variables `COMP_WORDS` and `COMP_CWORD`; nothing where the command is not installed."""
    try:
        return completions(os.environ["COMP_WORDS"].split(), int(os.environ["COMP_CWORD"]))
    except (KeyError, ValueError, ImportError, LdDeployError):
        return []  # a completion has no place for a message


def _options(command: str) -> list[str]:
    import typer
    from typer.main import get_command

    from ld_runtime.cli import find_command

    app = typer.Typer(add_completion=False)
    app.command(command)(find_command(command).load())
    parameters: list[Any] = get_command(app).params
    return [name for one in parameters for name in (*one.opts, *one.secondary_opts) if name.startswith("-")]
