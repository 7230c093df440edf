"""`ld-deploy`: finds its commands through the entry-point group `ld_deploy.commands` and imports the one it runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import TYPE_CHECKING, Any, NoReturn

from ld_runtime.completion import VARIABLE, answer
from ld_runtime.errors import BackendMissingError, LdDeployError, ParityError
from ld_runtime.nearest import nearest
from ld_runtime.overview import SUMMARIES, print_overview

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "ld_deploy.commands"


def find_command(name: str) -> EntryPoint:
    """The entry point of a command.

    Raises:
        LdDeployError: No such command.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        kind = "option" if name.startswith("-") else "command"
        guess = nearest(name, [*SUMMARIES, "--help", "--version"])
        raise LdDeployError(f"there is no {kind} {name!r}{guess or ';'} see `ld-deploy --help`")
    return found[name]


def run(name: str, arguments: Sequence[str]) -> NoReturn:
    """Imports one command, runs it and exits.

    Raises:
        BackendMissingError: The command's own libraries are not installed.
        LdDeployError: The arguments are not the command's.
    """
    import typer

    from ld_runtime.command import command_of, usage_message

    entry = find_command(name)
    try:
        function = entry.load()
    except ImportError as error:
        extra = {"ld_deploy": "train,export", "ld_export": "export"}.get(entry.value.split(".")[0], "onnxruntime")
        message = f"`ld-deploy {name}` needs {error.name}, which is not installed: pip install 'ld-deploy[{extra}]'"
        raise BackendMissingError(message) from error
    command = command_of(name, function)
    # The base of its errors: typer's own or click's, by the version of typer.
    usage_error: Any = typer.BadParameter.__mro__[1]
    try:
        status = command.main(list(arguments), prog_name=f"ld-deploy {name}", standalone_mode=False)
    except usage_error as error:
        raise LdDeployError(usage_message(error, command, name=name)) from error
    except typer.Abort:  # Ctrl-C
        sys.exit(130)
    sys.exit(status or 0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ld-deploy`. A user's mistake is one line and status 2, a failed check status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if VARIABLE in os.environ:
        sys.stdout.writelines(f"{line}\n" for line in answer(arguments))
        return
    if arguments and arguments[0] == "--version":
        sys.stdout.write(f"ld-deploy {version('ld-deploy')}\n")
        return
    if not arguments or arguments[0] in ("-h", "--help"):
        print_overview()
        return
    from ld_runtime import screen

    screen.start()
    try:
        run(arguments[0], arguments[1:])
    except ParityError as error:
        _say("failed", error)
        if "--json" in arguments:
            screen.print_error(error)
        sys.exit(1)
    except LdDeployError as error:
        _say("error", error)
        if "--json" in arguments:
            screen.print_error(error)
        sys.exit(2)


def _say(word: str, error: LdDeployError) -> None:
    from rich.console import Console
    from rich.markup import escape

    Console(stderr=True).print(f"[red]{word}:[/] {escape(str(error))}", highlight=False, soft_wrap=True)


if __name__ == "__main__":  # torchrun -m ld_runtime.cli train CONFIG
    main()
