"""`ld-deploy completion`: what makes a shell complete the commands."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ld_runtime.completion import SCRIPTS, Shell
from ld_runtime.screen import JsonOption, Screen


def completion(
    shell: Annotated[Shell, typer.Argument(help="Yours.")],
    *,
    as_json: JsonOption = False,
) -> None:
    """Print the script that completes commands, options and their values with the Tab key.

    To install it, run the line of your shell once and open a new one. $PROFILE is PowerShell's own variable.

        ld-deploy completion bash >> ~/.bashrc
        ld-deploy completion zsh >> ~/.zshrc
        ld-deploy completion fish > ~/.config/fish/completions/ld-deploy.fish
        ld-deploy completion powershell >> $PROFILE
    """
    if as_json:
        Screen(as_json=True).result({"shell": shell, "script": SCRIPTS[shell]})
    else:
        sys.stdout.write(SCRIPTS[shell])
