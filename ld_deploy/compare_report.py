"""A comparison as a table and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from ld_runtime.files import written_whole

if TYPE_CHECKING:
    from pathlib import Path


def points(metric: dict[str, Any]) -> str:
    """An AP of 0 to 1 in points, with the standard deviation over seeds where there are several."""
    spread = "" if metric["std"] is None else f" ± {100 * metric['std']:.1f}"
    return f"{100 * metric['mean']:.1f}{spread}"


def table(content: dict[str, Any]) -> Table:
    """The rows with AP in points, the best AP on val marked.

    Args:
        content: as `write_comparison` wrote it.
    """
    shown = Table("recipe", "seeds", "val AP", "test AP", "AP50", "AP75")
    best = max(row["val_ap"]["mean"] for row in content["rows"])
    for row in content["rows"]:
        cells = [points(row[key]) for key in ("val_ap", "test_ap", "test_ap50", "test_ap75")]
        style = "bold" if row["val_ap"]["mean"] == best else None
        shown.add_row(row["name"], str(row["seeds"]), *cells, style=style)
    teacher = content["teacher"]
    shown.add_section()
    shown.add_row("teacher", "1", "", *(f"{100 * teacher[key]:.1f}" for key in ("ap", "ap50", "ap75")))
    return shown


def draw(content: dict[str, Any], *, output: Path) -> None:
    """Test AP of each row, a dot a seed, with the first row's mean as a line.

    Args:
        content: as `write_comparison` wrote it.
        output: a .png.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = content["rows"][::-1]
    figure, axes = plt.subplots(figsize=(7, 1 + 0.3 * len(rows)), layout="constrained")
    for place, row in enumerate(rows):
        values = [100 * value for value in row["test_ap"]["each"]]
        axes.plot(values, [place] * len(values), "o", color="tab:blue", alpha=0.5, markersize=5)
        axes.plot(100 * row["test_ap"]["mean"], place, "|", color="tab:blue", markersize=16, markeredgewidth=2)
    first = content["rows"][0]
    axes.axvline(100 * first["test_ap"]["mean"], color="grey", linewidth=1, linestyle=":")
    axes.axvline(100 * content["teacher"]["ap"], color="tab:orange", linewidth=1, label="teacher")
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.set_xlabel(f"AP on test, points; a dot a seed, a bar their mean; dotted: {first['name']}")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="lower right")
    with written_whole(output) as temporary:
        figure.savefig(temporary, dpi=130)
    plt.close(figure)
