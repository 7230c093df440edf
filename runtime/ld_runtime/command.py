"""A command as typer makes it from a function, and what is wrong with its arguments in one line."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Callable

# Of typer for a value that is none of a few.
_NO_CHOICE = re.compile(r"'(?P<got>[^']*)' is not one of (?P<choices>.*)", re.DOTALL)


def command_of(name: str, function: Callable[..., None]) -> Any:
    """The command that a function with typer's annotations is, with the help of its docstring."""
    import typer
    from typer.main import get_command

    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    settings = {"help_option_names": ["--help", "-h"]}
    app.command(name, help=help_text(function), context_settings=settings)(function)
    return get_command(app)


def help_text(function: Callable[..., None]) -> str:
    """A docstring for typer: paragraphs as one line each, that fit any screen, and examples as they are, brighter."""
    paragraphs = inspect.cleandoc(function.__doc__ or "").replace("[", r"\[").split("\n\n")
    return "\n\n".join(
        f"[not dim]{one}[/]" if one.startswith("    ") else " ".join(one.split("\n")) for one in paragraphs
    )


def option_names(command: Any) -> list[str]:
    """Every spelling of a command's options, `--help` last."""
    names = [name for one in command.params for name in (*one.opts, *one.secondary_opts) if name.startswith("-")]
    return [*names, "--help"]


def usage_message(error: Any, command: Any, *, name: str) -> str:
    """What is wrong with the arguments of a command, the nearest name, and where to look.

    Args:
        error: typer's.
        command: of `command_of`.
        name: of it.
    """
    if hasattr(error, "possibilities"):
        text = f"there is no option {error.option_name}{nearest(error.option_name, option_names(command))}"
    else:
        text = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
        text = text[:1].lower() + text[1:]
        if found := _NO_CHOICE.search(text):
            text += nearest(found["got"], re.findall(r"'([^']*)'", found["choices"]))
    return f"{text}{'' if text.endswith('?') else ';'} see `ld-deploy {name} --help`"
