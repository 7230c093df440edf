"""`ld-deploy`: finds its commands through the entry-point group `ld_deploy.commands` and imports the one it runs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import TYPE_CHECKING

from ld_runtime.completion import BASH, VARIABLE, answer
from ld_runtime.errors import BackendMissingError, LdDeployError, ParityError
from ld_runtime.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUP = "ld_deploy.commands"

# In the order of the work. Written here, so that --help imports nothing; a test compares it with the entry points.
SUMMARIES = {
    "train": "train a teacher, a baseline or a distilled student from a config",
    "compare": "train several recipes on one data set, and say what each is worth",
    "bench-train": "where the time of a distilled training step goes",
    "eval": "AP of a checkpoint, by mmdet's own test loop",
    "publish": "strip a checkpoint to the student's weights, with its hash in the name",
    "published": "every config, what was published for it, and what was measured here",
    "landscape": "AP between two models: their features mixed, their heads swapped",
    "export": "checkpoint -> ONNX with decode and voting NMS inside, checked against PyTorch",
    "quantize": "ONNX -> INT8 or FP8 ONNX, calibrated on your images",
    "convert": "ONNX in float32 -> float16 or bfloat16",
    "build": "ONNX -> TensorRT or TensorRT-RTX engine",
    "verify": "AP and boxes of deployed files against PyTorch; exit status 1 past the tolerance",
    "bench": "latency and images a second, with the spans named",
    "bench-video": "how fast deployed files annotate a video, beside their engines alone",
    "recommend": "quality and latency of your files on all that can run them here, and which to take",
    "detect": "run a deployed file on an image, a folder, a glob or a video",
    "precision-report": "AP of files in several precisions against the first, with intervals",
    "report": "what commands left, as one HTML page",
    "nms-report": "AP and time of voting NMS against plain NMS on stored candidates",
    "demo": "the whole job on a synthetic data set, in minutes on a CPU",
    "doctor": "what is installed here, and what is missing for which command",
}


def print_overview() -> None:
    """Prints the commands, without importing any of them."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("Usage: [bold]ld-deploy COMMAND[/] [dim]... (ld-deploy COMMAND --help for each)[/]\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, summary in SUMMARIES.items():
        table.add_row(f"[bold]{name}[/]", summary)
    console.print(table)


def find_command(name: str) -> EntryPoint:
    """The entry point of a command.

    Raises:
        LdDeployError: No such command.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in found:
        raise LdDeployError(f"there is no command {name!r}{nearest(name, found) or ';'} there are: {', '.join(found)}")
    return found[name]


def run(name: str, arguments: Sequence[str]) -> None:
    """Imports one command and runs it.

    Raises:
        BackendMissingError: The command's own libraries are not installed.
    """
    import typer

    entry = find_command(name)
    try:
        command = entry.load()
    except ImportError as error:
        extra = {"ld_deploy": "train,export", "ld_export": "export"}.get(entry.value.split(".")[0], "onnxruntime")
        message = f"`ld-deploy {name}` needs {error.name}, which is not installed: pip install 'ld-deploy[{extra}]'"
        raise BackendMissingError(message) from error
    app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)
    app.command(name)(command)
    app(list(arguments), prog_name=f"ld-deploy {name}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `ld-deploy`. A user's mistake is one line and status 2, a failed check status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if VARIABLE in os.environ:
        sys.stdout.writelines(f"{line}\n" for line in answer())
        return
    if arguments and arguments[0] == "--version":
        sys.stdout.write(f"ld-deploy {version('ld-deploy')}\n")
        return
    if arguments and arguments[0] == "--show-completion":
        sys.stdout.write(BASH)
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
