"""What the site makes while it is built: command reference, tables of figures, formulas, the notebook's page."""

from __future__ import annotations

import inspect
import json
import re
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File
from typer.main import get_command

from ld_runtime.cli import SUMMARIES, find_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

DOCS = Path(__file__).parent
RESULTS = DOCS / "results"
SHIM = "https://unpkg.com/iframe-worker/shim"
ROLES = {"teacher": "teacher", "student": "student alone", "ld_student": "distilled student"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages and pictures that are not in the folder of pages."""
    files.append(File.generated(config, "commands.md", content=command_reference()))
    files.append(File.generated(config, "quickstart.md", content=notebook_page(DOCS / "quickstart.ipynb")))
    for folder in ("pictures", "results"):
        for picture in sorted([*(DOCS / folder).glob("*.png"), *(DOCS / folder).glob("*.jpg")]):
            files.append(File.generated(config, f"{folder}/{picture.name}", abs_src_path=str(picture)))
    return files


def on_post_page(output: str, **_: Any) -> str:
    """Browsers start no worker on pages from disk, and the theme fetches a stand-in for its search: here is ours."""
    shim = b64encode((DOCS / "frame_worker.js").read_bytes()).decode()
    if "iframe-worker" in output and SHIM not in output:
        raise PluginError(f"the theme's page does not name {SHIM}: look how it searches pages opened from disk now")
    return output.replace(SHIM, f"data:text/javascript;base64,{shim}")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replaces `{{ table NAME }}` by a table of docs/results, and formulas by MathML."""
    return with_formulas(re.sub(r"\{\{ table (\w+) \}\}", lambda found: TABLES[found[1]](), markdown))


def with_formulas(markdown: str) -> str:
    """`$$formula$$` as a block, `$formula$` within a line; code is left alone."""

    def as_block(found: re.Match[str]) -> str:
        return str(convert(found[1].strip(), display="block"))

    parts = re.split(r"(```.*?```|`[^`\n]*`)", markdown, flags=re.DOTALL)
    for index in range(0, len(parts), 2):
        block = re.sub(
            r"\$\$(.+?)\$\$", lambda f: convert(f[1].strip(), display="block"), parts[index], flags=re.DOTALL
        )
        parts[index] = re.sub(r"\$([^$\n]+)\$", lambda found: f"<span>{convert(found[1])}</span>", block)
    return "".join(parts)


def command_reference() -> str:
    """Every command with the help that `--help` prints."""
    lines = [
        "# Commands",
        "",
        "Made from the commands' own help. Exit status: 0, 1 for a failed check, 2 for an error.",
        "",
    ]
    for name, summary in SUMMARIES.items():
        loaded = find_command(name).load()
        app = typer.Typer(add_completion=False)
        app.command(name)(loaded)
        command = get_command(app)
        context: Any = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(context))
        lines += [f"## {name}", "", f"**{escape(summary)}**", "", f"    ld-deploy {name} {usage}", ""]
        lines += [inspect.cleandoc(command.help or ""), "", "| | | default |", "|---|---|---|"]
        for parameter in command.get_params(context):
            if "--help" in parameter.opts:
                continue
            names = ", ".join(f"`{one}`" for one in (*parameter.opts, *parameter.secondary_opts))
            if not names.startswith("`-"):
                names = f"`{str(parameter.name).upper()}`"
            help_text = getattr(parameter, "help", None) or ""
            lines.append(f"| {names} | {escape(help_text)} | {default_of(parameter)} |")
        lines.append("")
    return "\n".join(lines)


def default_of(parameter: Any) -> str:
    """As a table's cell."""
    if parameter.required:
        return "required"
    value = parameter.default
    if value in (None, False, [], ()) or callable(value):
        return ""
    return f"`{escape(str(value))}`"


def escape(text: str) -> str:
    """For a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def notebook_page(path: Path) -> str:
    """A notebook as a page: its text, and its code as blocks."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    note = "*This page is a notebook, `docs/quickstart.ipynb`; a test runs it on the demo's output.*"
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
    parts.insert(1, note)
    return "\n\n".join(parts)


def read(name: str) -> Any:
    """A result."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """As Markdown; the first column is text, the others are figures."""
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def demo_table() -> str:
    """The demo's three models."""
    rows = [
        (ROLES[row["role"]], f"{row['ap']:.3f}", f"{row['onnx_ap_difference']:+.4f}", f"{row['matched_share']:.2%}")
        for row in read("demo.json")["rows"]
    ]
    return table(("model", "AP", "ONNX minus PyTorch, AP", "boxes matched"), rows)


def trained_table(data: str) -> str:
    """The three models of `bccd` or `ssdd` on test, and their files."""
    fps = {one["name"]: one["fps"] for one in read(f"{data}_bench.json")["measurements"]}
    rows = []
    for role, title in ROLES.items():
        found = read(f"{data}_{role}.json")
        ap, file = found["ap"]["PyTorch"], f"{role}.onnx"
        shares = f"{found['ap_difference'][file]:+.4f}", f"{found['agreement'][file]['matched_share']:.2%}"
        rows.append((title, *(f"{ap[key]:.3f}" for key in ("ap", "ap50", "ap75")), *shares, f"{fps[file]:.0f}"))
    return table(("model", "AP", "AP50", "AP75", "ONNX minus PyTorch, AP", "boxes matched", "fps"), rows)


def compare_table() -> str:
    """Test AP of each recipe on two data sets, in points."""
    both = [{row["name"]: row for row in read(f"compare_{name}.json")["rows"]} for name in ("bccd", "demo")]
    rows = []
    for name, one in both[0].items():
        metrics = [one["test_ap"], both[1][name]["test_ap"]]
        cells = [f"{100 * m['mean']:.1f}" + ("" if m["std"] is None else f" ± {100 * m['std']:.1f}") for m in metrics]
        rows.append((name, str(one["seeds"]), *cells))
    return table(("recipe", "seeds", "BCCD test AP", "demo test AP"), rows)


def precision_table() -> str:
    """Files in several precisions against the float one, with paired intervals, in points of AP on test."""
    rows = []
    for one in read("quantization_bccd.json")["files"]:
        if one["split"] == "test":
            change = {key: 100 * value for key, value in one["difference"].items()}
            interval = f"{change['ap']:+.1f} ({change['low']:+.1f} to {change['high']:+.1f})"
            rows.append((f"`{one['name']}`", f"{100 * one['ap']:.1f}", interval))
    return table(("file", "test AP", "difference, 95 % interval"), rows)


def speed_rows(name: str) -> str:
    """Medians of one run of the benchmark in ms."""
    rows = []
    for one in read(name)["measurements"]:
        spans = one["spans"]
        engine = f"{spans['engine']['median_ms']:.1f}" if "engine" in spans else "-"
        rows.append((f"`{one['name']}`", engine, f"{spans['end_to_end']['median_ms']:.1f}"))
    return table(("runner", "engine, ms", "file to boxes, ms"), rows)


def tiling_table() -> str:
    """Mosaics whole and in tiles."""
    rows = [
        (
            one["name"],
            f"{one['tiles']:g}",
            "-" if one["holds_px"] is None else f"{one['holds_px']} px",
            f"{one['ap']:.3f}",
            f"{one['median_ms']:.0f}",
        )
        for one in read("tiling.json")["ways"]
    ]
    return table(("way", "runs a mosaic", "holds objects of", "AP", "ms a mosaic"), rows)


def nms_table() -> str:
    """Each form of the NMS on stored candidates of a COCO model."""
    case = read("nms_candidates.json")["cases"][0]
    rows = [(name, f"{ap['ap']:.4f}", f"{case['latency_ms'][name]['median']:.2f}") for name, ap in case["ap"].items()]
    return table(("form", "AP", "ms an image"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "demo": demo_table,
    "bccd": lambda: trained_table("bccd"),
    "ssdd": lambda: trained_table("ssdd"),
    "compare": compare_table,
    "precision": precision_table,
    "speed_bccd": lambda: speed_rows("speed_bccd.json"),
    "speed_r18": lambda: speed_rows("speed_r18.json"),
    "nms": nms_table,
    "tiling": tiling_table,
}
