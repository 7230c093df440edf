"""The demo's report from the JSONs of its stages: one table, `report.md` with pictures, `report.json`."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ld_deploy.demo.pictures import draw_curves, draw_detections, draw_spans
from ld_deploy.demo.stages import Outcome
from ld_runtime.bench_report import machine
from ld_runtime.errors import DataError
from ld_runtime.files import write_text
from ld_runtime.report import write_report as write_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ld_deploy.demo.stages import StageResult

TITLES = {"teacher": "teacher", "student": "student", "ld_student": "LD student"}
PRODUCT, QUANTIZED = "ld_student", "ld_student.int8"
HEADINGS = ("model", "AP", "AP50", "AP75", "params", "ONNX ΔAP", "matched", "fps")


@dataclass(frozen=True)
class Row:
    """One model of the demo. AP is of its PyTorch weights on the test split, the mean over its seeds.

    Args:
        role: `teacher`, `student` or `ld_student`; or `ld_student.int8`, the first seed's quantized file, whose AP is
            the file's.
        ap: 0-1, as the rest of its kind.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        ap_by_seed: what `ap` is the mean of.
        parameters: of the network.
        onnx_ap_difference: AP of the ONNX file minus PyTorch's, first seed; None where there is no AP.
        matched_share: boxes of both that have a partner, 0-1.
        fps: of the ONNX file, image file to boxes.
    """

    role: str
    ap: float
    ap50: float
    ap75: float
    ap_by_seed: tuple[float, ...]
    parameters: int
    onnx_ap_difference: float | None
    matched_share: float
    fps: float

    def cells(self) -> tuple[str, ...]:
        """As `HEADINGS`."""
        spread = f" ± {statistics.stdev(self.ap_by_seed):.3f}" if len(self.ap_by_seed) > 1 else ""
        difference = "-" if self.onnx_ap_difference is None else f"{self.onnx_ap_difference:+.4f}"
        return (
            f"{TITLES[PRODUCT]}, INT8" if self.role == QUANTIZED else TITLES[self.role],
            f"{self.ap:.3f}{spread}",
            f"{self.ap50:.3f}",
            f"{self.ap75:.3f}",
            f"{self.parameters / 1e6:.2f} M",
            difference,
            f"{self.matched_share:.2%}",
            f"{self.fps:.0f}",
        )


def gather_rows(results: Mapping[str, StageResult]) -> list[Row]:
    """One row a role, from the stages' results.

    Raises:
        DataError: A stage is missing.
    """
    missing = [name for name in (*TITLES, "verify", "bench") if name not in results]
    if missing:
        raise DataError(f"the report needs the stages {', '.join(missing)}: run `ld-deploy demo` to its end")
    fps = {one["name"]: one["fps"] for one in results["bench"].content["measurements"]}
    rows = []
    for role in TITLES:
        seeds = [results[name].content for name in sorted(results) if name == role or name.startswith(f"{role}_seed")]
        report = results["verify"].content["reports"][role]
        file = f"{role}.onnx"
        rows.append(
            Row(
                role=role,
                **{key: statistics.fmean(one[key] for one in seeds) for key in ("ap", "ap50", "ap75")},
                ap_by_seed=tuple(one["ap"] for one in seeds),
                parameters=seeds[0]["parameters"],
                onnx_ap_difference=report["ap_difference"][file],
                matched_share=report["agreement"][file]["matched_share"],
                fps=fps[role],
            )
        )
    report, file = results["verify"].content["reports"][PRODUCT], f"{QUANTIZED}.onnx"
    ap = report["ap"][file]
    quantized = replace(
        rows[-1],
        role=QUANTIZED,
        **{key: ap[key] for key in ("ap", "ap50", "ap75")},
        ap_by_seed=(ap["ap"],),
        onnx_ap_difference=report["ap_difference"][file],
        matched_share=report["agreement"][file]["matched_share"],
        fps=fps[QUANTIZED],
    )
    return [*rows, quantized]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """What the table says, in words; that distillation did not help, too."""
    by_role = {row.role: row for row in rows}
    teacher, student, distilled = (by_role[role] for role in TITLES)
    seeds = len(student.ap_by_seed)
    lead = 100 * (teacher.ap - student.ap)
    order = "leads" if lead >= 0 else "is behind"
    lines = [f"The teacher {order} the student that was trained alone by {abs(lead):.1f} AP points."]
    gains = [100 * (b - a) for a, b in zip(student.ap_by_seed, distilled.ap_by_seed, strict=True)]
    gain = statistics.fmean(gains)
    listed = ", ".join(f"{value:+.1f}" for value in gains)
    measured = f"{gain:+.1f} AP points ({f'seeds: {listed}' if seeds > 1 else 'one seed: no spread is known'})"
    if min(gains) > 0:
        lines.append(f"Distillation helped: {measured}.")
    elif gain > 0:
        lines.append(f"Distillation helped on average, not with every seed: {measured}.")
    else:
        lines.append(f"Distillation did not help on this set: {measured}.")
    quantized = by_role[QUANTIZED]
    times = quantized.fps / distilled.fps
    if quantized.onnx_ap_difference is not None:
        cost = 100 * quantized.onnx_ap_difference
        lines.append(f"INT8 changes AP by {cost:+.1f} points and runs {times:.1f} times as many images a second.")
    return lines


def screen_table(rows: Sequence[Row]) -> Table:
    """For the screen."""
    table = Table(title="test split of the rendered data set", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row.cells())
    return table


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def span_rows(bench: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Medians of the spans of each runner, in ms, as text."""
    rows = []
    for one in bench["measurements"]:
        spans = [one["spans"].get(span) for span in ("preprocess", "engine", "end_to_end")]
        cells = [f"{span['median_ms']:.1f}" if span else "-" for span in spans]
        tail = one["spans"]["end_to_end"]
        rows.append((one["name"], *cells, f"{tail['p90_ms']:.1f}", f"{tail['p99_ms']:.1f}", f"{tail['n']}"))
    return rows


def write_report(output: Path, *, results: Mapping[str, StageResult], pictures: int) -> Outcome:
    """Writes report.json, report.md, report.html and pictures/ into `output`.

    Args:
        output: the demo's folder.
        results: of its stages.
        pictures: how many test images are shown.

    Returns:
        The table's rows and the verdicts.

    Raises:
        DataError: A stage is missing.
    """
    rows = gather_rows(results)
    folder = output / "pictures"
    folder.mkdir(exist_ok=True)
    draw_curves({role: results[role].content["curves"] for role in TITLES}, titles=TITLES, path=folder / "training.png")
    draw_spans(results["bench"].content["measurements"], path=folder / "spans.png")
    draw_detections(output, titles=TITLES, count=pictures, path=folder / "detections.png")

    where = machine()
    words = verdicts(rows)
    elapsed = {name: result.elapsed_s for name, result in results.items()}
    content = {"rows": [asdict(row) for row in rows], "verdicts": words}
    document = {**content, "machine": where, "elapsed_s": elapsed, "stages": {n: r.content for n, r in results.items()}}
    write_text(output / "report.json", json.dumps(document, indent=1))

    seeds = max(len(row.ap_by_seed) for row in rows)
    times = [(name, f"{seconds:.0f}") for name, seconds in elapsed.items()]
    spans = ("runner", "preprocess", "engine", "end to end", "p90", "p99", "n")
    spread = "one seed each"
    if seeds > 1:
        spread = (
            f"mean ± standard deviation over {seeds} seeds of the students (one of the teacher); "
            "the ONNX columns and fps are of the first seed"
        )
    parts = [
        "# ld-deploy demo",
        "The same with curves, boxes and times to look into: [report.html](report.html).",
        markdown_table(HEADINGS, [row.cells() for row in rows]),
        "\n".join(f"- {line}" for line in words),
        f"AP on the test split with the PyTorch weights, {spread}. Both students are the same network; the LD student "
        "was trained with the teacher; its INT8 file's AP is that file's own. "
        "ONNX ΔAP: of the ONNX file minus PyTorch's. Matched: boxes of both that have a "
        "partner of the same class at IoU 0.99 or more. fps: image file to boxes, one image at a time.",
        f"{where['cpu']}, {where['cores']} cores, {where['system']}; "
        + ", ".join(f"{name} {number}" for name, number in where["versions"].items())
        + ".",
        "## What they see",
        "Test images, boxes above a score of 0.3. Solid: right class at IoU 0.5 or more; dashed: everything else.\n\n"
        "![annotated test images](pictures/detections.png)",
        "## Training",
        "![loss and validation AP](pictures/training.png)",
        "## Time",
        "![time of each span](pictures/spans.png)",
        "Milliseconds, median where nothing else is said; `end to end` is from the image file to the boxes.",
        markdown_table(spans, span_rows(results["bench"].content)),
        "Seconds of each stage:",
        markdown_table(("stage", "s"), times),
    ]
    write_text(output / "report.md", "\n\n".join(parts) + "\n")
    write_page([output], output=output / "report.html", title="ld-deploy demo")
    files = (
        "report.md",
        "report.html",
        "report.json",
        *(f"pictures/{name}.png" for name in ("training", "spans", "detections")),
    )
    return Outcome("report.md", content, files)
