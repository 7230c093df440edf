"""At a glance: a verdict for each deployed file, the table of models, and AP against milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ld_runtime.report.blocks import Cell, Section, Summary, Table, Verdict, number
from ld_runtime.report.points_chart import dots_of_recommendation, dots_of_rows, points_chart
from ld_runtime.report.rows import pareto_front

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.report.blocks import Block
    from ld_runtime.report.material import Interval, Material, Recommendation
    from ld_runtime.report.points_chart import Dot
    from ld_runtime.report.rows import Row

FIGURES = ("AP", "ΔAP", "ms", "speed")
HEADINGS = ("model", "AP", "AP50", "AP75", "ΔAP", "ms", "speed", "fps", "MB", "runs in")
MOST_VERDICTS = 10  # with more, files that nothing judged are in the tables alone
RECOMMENDED = ("median ms", "p90 ms", "command")


def summary(material: Material, rows: Sequence[Row]) -> Summary:
    """What a reader sees first."""
    files = {row.name: row for row in reversed(rows) if row.is_file}
    verdicts = [
        Verdict(
            row.name,
            None if row.failures is None else not row.failures,
            (
                _text(row.accuracy.ap, ".3f"),
                _difference(row.difference, interval=False),
                _text(row.milliseconds, ".1f"),
                "-" if row.speed is None else f"{row.speed:.1f}x",
            ),
            row.failures or (),
        )
        for row in reversed(files.values())
    ]
    judged = [one for one in verdicts if one.good is not None]
    if judged and len(verdicts) > MOST_VERDICTS:
        verdicts = judged
    sentences: list[tuple[bool | None, str]] = []
    if judged:
        good = sum(bool(one.good) for one in judged)
        sentences.append((good == len(judged), f"{good} of {len(judged)} deployed files agree with PyTorch."))
    sentences += [(None, line) for line in material.verdicts]
    sentences += [(None, f"recommend, on {one.images} images: {one.advice}.") for one in material.recommendations]
    if any(bench.stable is False for bench in material.benches):
        sentences.append((False, "Clocks did not hold during a benchmark: its times are not to be quoted."))
    return Summary(FIGURES, verdicts, sentences)


def models_section(rows: Sequence[Row], recommendations: Sequence[Recommendation]) -> Section | None:
    """A table for each set of images, one chart of all points, and the commands of `recommend`."""
    tables: list[Block] = []
    dots: dict[str, list[Dot]] = {}
    words: dict[str, str] = {}
    groups = {data: [row for row in rows if row.data == data] for data in dict.fromkeys(row.data for row in rows)}
    if len(groups) == 2 and "" in groups:  # what was timed only has its place below the only table with AP
        timed_only = groups.pop("")
        groups = {data: [*here, *timed_only] for data, here in groups.items()}
    for data, here in groups.items():
        front = pareto_front(here)
        caption = (
            "AP 0 to 1 by COCO's rule, of rotated boxes by DOTA's. ΔAP: minus the reference's, [95 % interval] where "
            "boxes differ. ms: image file to boxes, median, one image at a time. speed: how many times as fast as the "
            "same weights in PyTorch, in the same benchmark. ◆: no other has more AP in less time."
        )
        title = data or "Timed, without an AP in this run"
        cells = [_cells(row, front=front) for row in here]
        tables.append(Table(title, HEADINGS, cells, caption, text_columns=(0, 9)))
        if found := dots_of_rows(here):
            choice = "verify and bench" if len(groups) == 1 else f"verify and bench, {data}"
            dots[choice], words[choice] = found, "AP"
    for one in recommendations:
        choice = f"recommend, {one.path.name}" if one.path.name not in words else f"recommend, {one.path}"
        dots[choice], words[choice] = dots_of_recommendation(one), one.word
    blocks = [*tables, *([points_chart(dots, words)] if dots else []), *map(recommendation_table, recommendations)]
    return Section("models", "Models", blocks) if blocks else None


def recommendation_table(one: Recommendation) -> Table:
    """Each point with its command, the fastest first."""
    rows = [
        (
            Cell(f"◆ {point.name}" if point.on_front else point.name, point.name),
            number(point.quality, ".4f"),
            number(point.median_ms, ".2f"),
            number(point.p90_ms, ".2f"),
            Cell(point.command, code=True),
        )
        for point in sorted(one.points, key=lambda point: point.median_ms)
    ]
    caption = (
        f"{one.path.name}: {one.advice}. {one.word} and ms on {one.images} images, file to boxes. ◆: no other is at "
        "least as good and faster, or as fast and better; times within a run's own spread count as equal."
    )
    return Table("What to take", ("file and engine", one.word, *RECOMMENDED), rows, caption, text_columns=(0, 4))


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _difference(difference: Interval | None, *, interval: bool) -> str:
    if difference is None:
        return "-"
    text = f"{difference.ap:+.4f}"
    if interval and difference.low is not None and difference.high is not None and difference.low < difference.high:
        text += f" [{difference.low:+.4f}, {difference.high:+.4f}]"
    return text


def _cells(row: Row, *, front: Sequence[Row]) -> tuple[Cell, ...]:
    difference, accuracy = row.difference, row.accuracy
    return (
        Cell(f"◆ {row.name}" if row in front else row.name, row.name),
        number(accuracy.ap, ".4f"),
        number(accuracy.ap50, ".4f"),
        number(accuracy.ap75, ".4f"),
        Cell(_difference(difference, interval=True), difference.ap if difference else None),
        number(row.milliseconds, ".2f"),
        number(row.speed, ".2f"),
        number(row.timed.fps if row.timed else None, ".1f"),
        number(row.timed.size_mb if row.timed else None, ".1f"),
        Cell(row.runs_in),
    )
