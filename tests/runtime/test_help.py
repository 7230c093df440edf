"""What `--help` shows: every command in one panel, and examples that its own parser takes."""

from __future__ import annotations

import inspect
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ld_runtime import cli
from ld_runtime.command import command_of, help_text
from ld_runtime.overview import PANELS, SUMMARIES

ROOT = Path(__file__).parents[2]
WIDTH = 80  # of a usual screen


def shown(capsys: pytest.CaptureFixture[str], name: str, option: str) -> str:
    """The help of a command."""
    with pytest.raises(SystemExit) as stopped:
        cli.main([name, option])
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setenv("NO_COLOR", "1")


def test_the_root_shows_each_command_in_one_panel(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--help"])
    text = capsys.readouterr().out
    titles = re.findall(r"^╭─ (\w+) ─+╮$", text, flags=re.MULTILINE)
    assert titles == ["Train", "Export", "Prove", "Run", "Tools"] == list(PANELS)
    for title, panel in zip(titles, re.split(r"^╭─.*$", text, flags=re.MULTILINE)[1:], strict=True):
        rows = re.findall(r"^│ ([a-z-]+) +(.*?) *│$", panel, flags=re.MULTILINE)
        assert dict(rows) == PANELS[title]  # each on a line of its own
    assert Counter(name for commands in PANELS.values() for name in commands) == Counter(SUMMARIES.keys())
    assert max(map(len, text.splitlines())) <= WIDTH
    for arguments in ([], ["-h"]):
        cli.main(arguments)
        assert capsys.readouterr().out == text


def examples(function: Any) -> list[str]:
    """The command lines that a docstring ends with."""
    last = inspect.cleandoc(function.__doc__ or "").split("\n\n")[-1]
    return re.findall(r"^    (ld-deploy .*)$", last, flags=re.MULTILINE)


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_command_ends_with_examples_that_parse(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    function = cli.find_command(name).load()
    lines = examples(function)
    assert lines
    command = command_of(name, function)
    text = shown(capsys, name, "--help")
    assert text == shown(capsys, name, "-h")
    for line in lines:
        _, called, *arguments = shlex.split(re.split(r" >>? ", line)[0])
        assert called == name
        with command.make_context(f"ld-deploy {name}", list(arguments)) as context:  # an error where one is wrong
            assert set(context.params) == {one.name for one in command.params}
        for path in (one for one in arguments if one.startswith("configs/")):
            assert (ROOT / path).is_file()
        assert f"{line} " in text  # in one piece, so that it can be copied


@pytest.mark.parametrize(
    ("name", "panels"),
    [
        ("bench", {"--against": "Against PyTorch", "--seconds": "Measurement", "--nms": "Runtime"}),
        ("detect", {"--tile": "Images", "--track": "Video", "--threads": "Runtime"}),
        ("verify", {"--limit": "Images", "--tolerance-ap": "Tolerance", "--explain": "Comparison"}),
        ("recommend", {"--max-latency-ms": "Budget", "--seconds": "Measurement"}),
    ],
)
def test_long_commands_have_panels(name: str, panels: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, name, "--help")
    by_title = dict(re.findall(r"^╭─ ([^─]+) ─+╮$(.*?)^╰─+╯$", text, flags=re.MULTILINE | re.DOTALL))
    for option, title in {**panels, "--json": "Options", "--output": "Options"}.items():
        assert [each for each, rows in by_title.items() if f" {option} " in rows] == [title]


def test_paragraphs_fit_any_screen_and_brackets_are_text() -> None:
    def command() -> None:
        """First
        line.

        A list[str] and
        more.

            ld-deploy a [b]
            ld-deploy c
        """

    first, second, example = help_text(command).split("\n\n")
    assert (first, second) == ("First line.", r"A list\[str] and more.")
    assert example == "[not dim]    ld-deploy a \\[b]\n    ld-deploy c[/]"
