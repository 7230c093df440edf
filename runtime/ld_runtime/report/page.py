"""The page: sections in their order, put into the template. The only module that names Jinja2 and plotly."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from ld_runtime.detection_record import DetectionRecord
from ld_runtime.errors import BackendMissingError
from ld_runtime.files import write_text
from ld_runtime.report.accuracy_section import accuracy_section
from ld_runtime.report.blocks import Chart, Lines, Section
from ld_runtime.report.find import find_material
from ld_runtime.report.images_section import images_section
from ld_runtime.report.latency_section import latency_section
from ld_runtime.report.models_section import models_section, summary
from ld_runtime.report.parity_section import parity_section
from ld_runtime.report.rows import join_rows
from ld_runtime.report.training_section import training_section

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ld_runtime.report.blocks import Summary
    from ld_runtime.report.material import Bench, Comparison, Material, Parity, Recommendation


@dataclass(frozen=True)
class Report:
    """What was written.

    Args:
        path: of the page.
        sections: their titles.
        missing: what was not found, each with the command that makes it.
    """

    path: Path
    sections: tuple[str, ...]
    missing: tuple[str, ...]


def write_report(runs: Sequence[Path], *, output: Path, title: str = "Detection report") -> Report:
    """Makes one HTML page, which needs no network, of what is in some folders and files.

    Args:
        runs: folders of a demo, of trainings, of a comparison or of JSONs; and JSON files.
        output: the page.
        title: of the page.

    Raises:
        InputError: There is nothing to report, or a picture cannot be read.
        DataError: A file is damaged.
        BackendMissingError: Jinja2, plotly or pycocotools is not installed.
        LdDeployError: The page cannot be written.
    """
    material = find_material(runs)
    rows = join_rows(material)
    records = [(one, DetectionRecord.read(one.record)) for one in material.parities if one.record]
    sections = [
        models_section(rows, material.recommendations),
        accuracy_section(records, material.parities),
        parity_section(records, material.parities),
        latency_section(material.benches),
        training_section(material.trainings, material.comparisons),
        images_section(records),
        origin_section(material),
    ]
    there = [section for section in sections if section is not None]
    missing = what_is_missing(material, with_records=bool(records))
    write_text(output, render(title, there, summary(material, rows), missing))
    return Report(output, tuple(one.title for one in there), tuple(missing))


def origin_section(material: Material) -> Section:
    """Machines, versions, hashes, and the commands that make each input again."""
    sources: list[Parity | Bench | Comparison | Recommendation] = [
        *material.parities,
        *material.benches,
        *material.comparisons,
        *material.recommendations,
    ]
    machines: dict[str, None] = {}
    for one in sources:
        if one.machine:
            versions = ", ".join(f"{name} {number}" for name, number in one.machine.get("versions", {}).items())
            gpus = ", ".join(one.machine.get("gpus", ())) or "no GPU"
            cpu = f"{one.machine.get('cpu', '?')}, {one.machine.get('cores', '?')} cores, {gpus}"
            machines[f"{cpu}; {one.machine.get('system', '')}; {versions}"] = None
    hashes: dict[str, None] = {}
    for parity in material.parities:
        files = {parity.label(parity.reference): parity.reference_key, **{one.label: one.key for one in parity.files}}
        hashes |= {f"{key.sha256}  {name}": None for name, key in files.items() if key.sha256}
    commands = dict.fromkeys(one.command for one in sources)
    lines = {"Machines and versions": machines, "SHA-256 of the files": hashes, "To make the inputs again": commands}
    return Section(
        "origin", "Origin", [Lines(title, list(found), code=True) for title, found in lines.items() if found]
    )


def what_is_missing(material: Material, *, with_records: bool) -> list[str]:
    """What the page could have shown, and the command that makes it."""
    wanted = (
        (material.parities, "AP of deployed files: ld-deploy verify CONFIG CHECKPOINT MODEL... -o RUN/parity.json"),
        (
            with_records,
            "PR curves, confusion, worst images: the record that ld-deploy verify -o RUN/parity.json writes beside it",
        ),
        (material.benches, "times: ld-deploy bench MODEL... --images IMAGES -o RUN/bench.json"),
        (material.recommendations, "what to take: ld-deploy recommend MODEL... --images IMAGES -o RUN/recommend.json"),
        (material.trainings, "training curves and pictures: ld-deploy train CONFIG --work-dir RUN/NAME"),
        (material.comparisons, "recipes side by side: ld-deploy compare COMPARISON --work-dir RUN/compare"),
    )
    return [text for found, text in wanted if not found]


def render(title: str, sections: Sequence[Section], said: Summary, missing: Sequence[str]) -> str:
    """The page's text.

    Raises:
        BackendMissingError: Jinja2 or plotly is not installed.
    """
    try:
        from jinja2 import Environment, StrictUndefined
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise BackendMissingError(f"a report needs {error.name}: pip install 'ld-deploy[report]'") from error
    here = importlib.resources.files("ld_runtime.report")
    parts = {name: (here / f"page.{name}").read_text(encoding="utf-8") for name in ("html", "css", "js")}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    has_charts = any(isinstance(block, Chart) for section in sections for block in section.blocks)
    text: str = environment.from_string(parts["html"]).render(
        title=title,
        sections=sections,
        summary=said,
        missing=missing,
        css=parts["css"],
        js=parts["js"],
        plotly=get_plotlyjs() if has_charts else "",
        version=version("ld-deploy"),
    )
    return text
