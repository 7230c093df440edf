"""The report's numbers are those of its inputs, and its page works in a browser."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from ld_runtime.cli import main
from ld_runtime.errors import DataError, InputError
from ld_runtime.report import write_report
from ld_runtime.report.evaluation import confusion, score_image, truths_of
from ld_runtime.report.explanation_blocks import explanation_tables
from ld_runtime.report.find import find_material
from ld_runtime.report.material import Accuracy, Judged, ModelKey, Span, Timed
from ld_runtime.report.rows import Row, join_rows, pareto_front
from tests.runtime.report_cases import CLASSES, DEPLOYED, EVIL, REFERENCE, document, write_run

if TYPE_CHECKING:
    from tests.browser import Browser

SECTIONS = ["models", "accuracy", "parity", "latency", "training", "images", "origin"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return write_report([run], output=run.parent / "report.html").path


def test_ap_and_time_are_joined_by_hash(run: Path) -> None:
    rows = {(row.name, row.data != ""): row for row in join_rows(find_material([run]))}
    deployed = rows["a.onnx", True]
    assert (deployed.accuracy.ap, deployed.milliseconds) == (0.5432, 7.25)
    assert deployed.timed is not None
    assert deployed.timed.size_mb == 1.25
    assert rows["PyTorch · a", True].milliseconds == 29
    assert deployed.speed == 4


def test_keys_fit_as_far_as_both_say() -> None:
    key = ModelKey("a", "openvino", "bf16")
    assert key.fits(ModelKey("a"))
    assert key.fits(ModelKey("a", "openvino"))
    assert not key.fits(ModelKey("a", "onnxruntime"))
    assert not key.fits(ModelKey("b", "openvino", "bf16"))
    assert not ModelKey("").fits(ModelKey(""))


def row(name: str, ap: float | None, ms: float | None) -> Row:
    timed = None
    if ms is not None:
        spans = {"end_to_end": Span(ms, ms, ms, ms, 1, ())}
        timed = Timed(name, ModelKey(name), is_file=True, spans=spans, fps=1.0)
    return Row(name, ModelKey(name), "test", Accuracy(ap), is_file=True, timed=timed)


def test_front() -> None:
    rows = [
        row("slow", 0.5, 9),
        row("best", 0.6, 8),
        row("fast", 0.4, 2),
        row("worse", 0.3, 2),
        row("untimed", 0.9, None),
    ]
    assert [one.name for one in pareto_front([*rows, row("twin", 0.4, 2)])] == ["fast", "twin", "best"]
    assert pareto_front([]) == []


def test_confusion_by_hand(run: Path) -> None:
    (parity,) = find_material([run]).parities
    assert parity.record is not None
    from ld_runtime.detection_record import DetectionRecord

    truths = truths_of(DetectionRecord.read(parity.record))
    # Rows: disc, the other, background. The third box of the reference is below the score.
    assert confusion(truths, REFERENCE, classes=2).tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert confusion(truths, DEPLOYED, classes=2).tolist() == [[1, 0, 1], [1, 0, 0], [0, 1, 0]]
    first, second = map(score_image, truths, DEPLOYED)
    assert (first.hits, first.missed, first.wrong, first.f1) == (((0, 0),), (1,), (1,), 0.5)
    assert second.f1 == 0
    assert [one.f1 for one in map(score_image, truths, REFERENCE)] == [1, 1]


def test_crowds_are_no_truth() -> None:
    from ld_runtime.detection_record import DetectionRecord

    content = document()
    content["annotations"][0]["iscrowd"] = 1
    record = DetectionRecord("PyTorch", [], content, (1, 2), {})
    assert [len(one.labels) for one in truths_of(record)] == [1, 1]
    np.testing.assert_array_equal(truths_of(record)[0].boxes, [[50, 50, 80, 80]])


def test_curves_of_a_log_that_was_cut(run: Path) -> None:
    (training,) = find_material([run]).trainings
    assert training.losses["loss_cls"] == ((1.0, 2.0), (2.0, 1.5))
    assert training.val_ap == ((1, 0.25), (2, 0.375))
    assert list(training.gradient_shares) == ["grad_cls"]


def test_numbers_and_names_in_the_text(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for figure in ("0.6123", "0.5432", "-0.0691", "28.570%", "7.25", "133.7", "tie 1, vote 2", "a" * 64):
        assert figure in text, figure
    assert EVIL not in text
    assert html.escape(EVIL) in text or html.escape(EVIL).replace("&", "\\u0026") in text
    assert "0 of 1 deployed files agree" in text


def test_charts_hold_the_numbers(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    figures = [json.loads(one) for one in re.findall(r'<script type="application/json">(.*?)</script>', text)]
    traces = [trace for figure in figures for trace in figure["data"]]
    assert any(trace.get("x") == [7.25, 29] and trace.get("y") == [0.5432, 0.6123] for trace in traces)
    assert any(trace.get("x") == [6.5, 7.25, 12.0] and trace.get("y") == [0, 50, 100] for trace in traces)
    assert any(trace.get("z") == [[0.5, 0, 0.5], [1, 0, 0], [0, 1, 0]] for trace in traces)


def test_in_a_browser(page: Path, browser: Browser) -> None:
    with browser.open(page) as opened:
        one = opened.page
        assert [section.get_attribute("id") for section in one.query_selector_all("section")] == SECTIONS
        for plot in one.query_selector_all(".plot"):
            plot.scroll_into_view_if_needed()
            one.wait_for_function("plot => plot.classList.contains('js-plotly-plot')", arg=plot)
        one.click("#parity th >> nth=0")
        assert one.get_attribute("#parity th >> nth=0", "aria-sort") == "ascending"
        cells = "[...document.querySelectorAll('#models table')[0].tBodies[0].rows].map(row => row.cells[1].innerText)"
        one.click("#models th >> nth=1")
        assert one.evaluate(cells) == ["0.6123", "0.5432"]
        one.click("#models th >> nth=1")
        assert one.evaluate(cells) == ["0.5432", "0.6123"]
        one.locator("#accuracy .chart").last.locator("select").nth(1).select_option(CLASSES[1])
        point = one.locator("#models .plot .point").first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        assert "0.5432" in (one.text_content("#models .hoverlayer") or "")
        assert opened.problems == []
        assert opened.requests == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_runs_over(page: Path, browser: Browser, scheme: str) -> None:
    with browser.open(page, width=375, height=700, scheme="dark" if scheme == "dark" else "light") as opened:
        opened.page.evaluate("plots.forEach(show)")
        assert opened.page.evaluate("document.documentElement.scrollWidth") == 375
        assert opened.problems == []


LEVEL = {
    "stride": 8,
    "class_logits": {"mean": 0.5},
    "scores": {"max": 0.25},
    "edges_px": {"mean": 1.5, "p99": 2.5, "max": 3.5},
}


def test_an_explanation_names_its_stage(run: Path, tmp_path: Path) -> None:
    content = json.loads((run / "parity.json").read_text(encoding="utf-8"))
    name = next(iter(content["agreement"]))
    steps = [{"moved": moved} for moved in (0, 1, 22, 333, 4444)]
    content["explanation"] = {name: {"sentence": "the decode owns <it>", "chain": steps, "levels": [LEVEL]}}
    content["agreement"][name]["unmatched"] = 4
    (tmp_path / "parity.json").write_text(json.dumps(content), encoding="utf-8")
    page = tmp_path / "report.html"
    write_report([tmp_path], output=page)
    bare = re.sub(r"<script.*?</script>", " ", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    text = " ".join(re.sub(r"<[^>]*>", " ", bare).split())
    assert "the decode owns &lt;it&gt; 1 22 333 4444" in text
    assert "8 0.5 0.25 1.5 2.5 3.5" in text
    assert "cause not in this summary 4" in text


def test_a_file_whose_stages_cannot_be_swapped() -> None:
    file = Judged("a", ModelKey("a"), Accuracy(0.5), explanation={"sentence": "an engine"}, label="a.engine")
    (table,) = explanation_tables([SimpleNamespace(files=[file])])  # type: ignore[list-item]
    assert [cell.text for cell in table.rows[0]] == ["a.engine", "an engine", "-", "-", "-", "-"]


def test_nothing_to_report(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"nothing to report.*ld-deploy train"):
        write_report([tmp_path], output=tmp_path / "report.html")
    with pytest.raises(InputError, match="there is no"):
        write_report([tmp_path / "gone"], output=tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_input_is_told(run: Path, tmp_path: Path) -> None:
    content = json.loads((run / "parity.json").read_text(encoding="utf-8"))
    del content["agreement"]["a.onnx"]["matched_share"]
    (tmp_path / "parity.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"parity\.json looks like a JSON of `ld-deploy verify`"):
        find_material([tmp_path])


def test_command(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run / "bench.json"), "-o", str(output), "--json"])
    assert ended.value.code == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sections"] == ["Models", "Time", "Origin"]
    assert any("ld-deploy verify" in line for line in told["missing"])
    assert output.is_file()
