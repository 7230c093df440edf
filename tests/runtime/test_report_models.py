"""A report of several models: one line, one row and one choice for each file, and what `recommend` measured."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ld_runtime.detections import Detections
from ld_runtime.errors import DataError
from ld_runtime.report import write_report
from ld_runtime.report.blocks import Chart, Lines, Overlays, Table
from ld_runtime.report.differences import difference_of
from ld_runtime.report.find import find_material
from ld_runtime.report.images_section import images_section
from ld_runtime.report.models_section import models_section, summary
from ld_runtime.report.naming import model_of
from ld_runtime.report.parity_section import pairs_chart, parity_section
from ld_runtime.report.rows import join_rows
from tests.runtime.report_cases import detections
from tests.runtime.report_models import PYTORCH_MS, command_of, write_models, write_recommendation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ld_runtime.detection_record import DetectionRecord
    from ld_runtime.report.material import Material, Parity
    from tests.browser import Browser

FILES = ["ld_student.onnx", "ld_student.int8.onnx", "student.onnx", "teacher.onnx"]  # by the names of their JSONs
ALIKE = [FILES[0], *FILES[2:]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_models(tmp_path_factory.mktemp("models") / "run")
    write_recommendation(folder / "recommend.json")
    return folder


@pytest.fixture(scope="module")
def material(run: Path) -> Material:
    return find_material([run])


@pytest.fixture(scope="module")
def records(material: Material) -> list[tuple[Parity, DetectionRecord]]:
    from ld_runtime.detection_record import DetectionRecord

    return [(one, DetectionRecord.read(one.record)) for one in material.parities if one.record]


@pytest.fixture(scope="module")
def page(run: Path) -> Path:
    return write_report([run], output=run.parent / "report.html").path


def texts(table: Table) -> list[tuple[str, ...]]:
    return [tuple(cell.text for cell in row) for row in table.rows]


# 1. What `recommend` measured.


def test_the_front_of_recommend_is_a_line_and_the_rest_grey(material: Material) -> None:
    section = models_section(join_rows(material), material.recommendations)
    assert section is not None
    (chart,) = (one for one in section.blocks if isinstance(one, Chart))
    assert chart.menus == (("verify and bench", "recommend, recommend.json"),)
    traces = {one["name"]: one for one in chart.traces if one["meta"] == ["recommend, recommend.json"]}
    front, beaten = traces["front"], traces["beaten"]
    assert (front["x"], front["y"]) == ([2.0, 3.5], [0.352, 0.36])
    assert front["text"] == ["ld_student.int8.onnx", "ld_student.onnx@openvino"]
    assert "lines" in front["mode"]
    assert (beaten["x"], beaten["y"], beaten["marker"]["color"]) == ([4.5], [0.36], "var(--muted)")
    assert "lines" not in beaten["mode"]
    hovered = beaten["customdata"][0][2].replace("<br>", " ").strip()
    assert hovered == html.escape(command_of("ld_student.onnx@onnxruntime"), quote=False)


def test_its_commands_are_a_table(material: Material) -> None:
    section = models_section(join_rows(material), material.recommendations)
    assert section is not None
    table = section.blocks[-1]
    assert isinstance(table, Table)
    assert texts(table) == [
        ("◆ ld_student.int8.onnx", "0.3520", "2.00", "2.50", command_of("ld_student.int8.onnx")),
        ("◆ ld_student.onnx@openvino", "0.3600", "3.50", "4.00", command_of("ld_student.onnx@openvino")),
        ("ld_student.onnx@onnxruntime", "0.3600", "4.50", "5.00", command_of("ld_student.onnx@onnxruntime")),
    ]
    assert "take ld_student.int8.onnx: 2.2 times" in table.caption


def test_agreement_is_not_called_ap(tmp_path: Path) -> None:
    write_recommendation(tmp_path / "recommend.json", word="agreement")
    (one,) = find_material([tmp_path]).recommendations
    assert (one.word, one.points[0].quality) == ("agreement", 0.36)
    assert "--annotations" not in one.command
    section = models_section([], [one])
    assert section is not None
    chart, table = section.blocks
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert chart.layouts["recommend, recommend.json"]["yaxis"]["title"]["text"] == "agreement"
    assert table.headings[1] == "agreement"


def test_a_damaged_recommendation_is_told(tmp_path: Path) -> None:
    path = tmp_path / "recommend.json"
    write_recommendation(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    for damaged in ({**content, "points": []}, {**content, "points": [{"name": "a"}]}):
        path.write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(DataError, match=r"recommend\.json looks like a JSON of `ld-deploy recommend`"):
            find_material([tmp_path])


# 2. One parity section.


def test_one_row_for_each_file(material: Material, records: Sequence[tuple[Parity, DetectionRecord]]) -> None:
    section = parity_section(records, material.parities)
    assert section is not None
    table, chart = section.blocks
    assert isinstance(table, Table)
    assert texts(table) == [
        ("ld_student.onnx", "ld_student", "+0.0000", "100.000%", "1e-06", "0", "none"),
        ("ld_student.int8.onnx", "ld_student", "-0.0080", "28.570%", "0.023", "0.5", "tie 1, vote 2"),
        ("student.onnx", "student", "+0.0000", "100.000%", "1e-06", "0", "none"),
        ("teacher.onnx", "teacher", "+0.0000", "100.000%", "1e-06", "0", "none"),
    ]
    assert isinstance(chart, Chart)
    ((first, *others),) = chart.menus
    assert first == "ld_student.int8.onnx"  # the least alike
    assert others == ALIKE


def test_pairs_and_boxes_without_a_partner(records: Sequence[tuple[Parity, DetectionRecord]]) -> None:
    pairs, alone = (one for one in pairs_chart(records).traces if one["meta"] == ["ld_student.int8.onnx"])
    assert (pairs["x"], pairs["y"], pairs["customdata"]) == ([0.9], [0.88], [0.5])
    # The reference's disc, its low box, and the disc of the second image; then the wrong class and what is not there.
    assert (alone["x"], alone["y"]) == ([0.8, 0.1, 0.7, 0, 0], [0, 0, 0, 0.75, 0.6])


def test_references_are_named_by_their_model(material: Material, page: Path) -> None:
    names = [row.name for row in join_rows(material) if row.name.startswith("PyTorch")]
    assert names == [f"PyTorch · {model}" for model in ("ld_student", "student", "teacher")]
    options = re.findall(r"<option>(.*?)</option>", page.read_text(encoding="utf-8"))
    assert options.count("PyTorch") == 0
    (bench,) = material.benches
    assert [one.name for one in bench.timed if not one.is_file] == [
        "PyTorch · ld_student",
        "mmdet inference_detector · ld_student",
    ]
    assert options.count("PyTorch · ld_student") == 1


def test_models_by_the_names_of_their_files() -> None:
    assert model_of(["a.int8.onnx", "a.onnx"]) == "a"
    assert model_of(["runs/a.onnx", "a.onnx@openvino:bf16"]) == "a"
    assert model_of(["a.fp16.engine"]) == "a.fp16"
    assert model_of(["ab.onnx", "a.onnx"]) == "ab"  # two models: the first
    assert model_of([]) == ""


def test_two_runs_with_the_same_names(run: Path, tmp_path: Path) -> None:
    other = write_models(tmp_path / "other", models=("student",))
    content = json.loads((other / "verify" / "student.json").read_text(encoding="utf-8"))
    content["ap"]["PyTorch"]["ap"] = 0.2
    (other / "verify" / "student.json").write_text(json.dumps(content), encoding="utf-8")
    parities = find_material([run, other]).parities
    assert len({one.model for one in parities}) == len(parities) == 4
    labels = [file.label for one in parities for file in one.files]
    assert len(set(labels)) == len(labels) == 5
    assert labels[0] == "ld_student.onnx"  # where there is one, its name is enough
    assert labels[-1] == f"student.onnx, test, {other / 'verify' / 'student.json'}"


def test_two_splits_of_one_report(tmp_path: Path) -> None:
    files = [
        {"name": name, "split": split, "ap": ap, "images": 9, "backend": "onnxruntime", "precision": "fp32"}
        | {"difference": {"ap": 0.01, "low": 0.0, "high": 0.02}}
        for split, ap in (("val", 0.5), ("test", 0.4))
        for name in ("a.onnx", "a.int8.onnx")
    ]
    content = {"config": "a.py", "files": files, "models_sha256": {"a.onnx": "a" * 64, "a.int8.onnx": "b" * 64}}
    (tmp_path / "precision.json").write_text(json.dumps(content), encoding="utf-8")
    rows = join_rows(find_material([tmp_path]))
    assert [row.name for row in rows] == ["a.onnx, val", "a.int8.onnx, val", "a.onnx, test", "a.int8.onnx, test"]


# 3. Images.


def test_a_difference_by_hand() -> None:
    one = detections((0, 0, 10, 10, 0.9, 0), (50, 50, 60, 60, 0.5, 1), (80, 80, 90, 90, 0.2, 0))
    same = difference_of(one, one)
    assert (same.shown, same.apart, same.size) == (((0, 1), (0, 1)), ((), ()), 0)
    # The first is cut to 8 of its 10 rows, the second is of another class, the third is below the score.
    other = detections((0, 0, 10, 8, 0.8, 0), (50, 50, 60, 60, 0.5, 0), (0, 80, 9, 90, 0.25, 0))
    found = difference_of(one, other)
    assert found.apart == ((0, 1), (0, 1))
    assert found.size == pytest.approx((1 - 0.8) + (0.9 - 0.8) + 0.5 + 0.5)


def test_what_a_box_may_move_by() -> None:
    one = detections((0, 0, 100, 100, 0.5, 0))

    def differs(height: float, score: float) -> tuple[bool, bool]:
        """From one of 100 rows and 0.5: at all, and for the eye."""
        found = difference_of(one, detections((0, 0, 100, height, score, 0)))
        return found.size > 0, any(found.apart)

    assert differs(100, 0.5) == (False, False)
    assert differs(99.1, 0.509) == (False, False)
    assert differs(98.9, 0.5) == (True, False)
    assert differs(100, 0.511) == (True, False)
    assert differs(90.1, 0.599) == (True, False)
    assert differs(89.9, 0.5) == (True, True)
    assert differs(100, 0.601) == (True, True)
    # Above the score on one side only: a partner is shown with it.
    near = difference_of(detections((0, 0, 100, 100, 0.301, 0)), detections((0, 0, 100, 100, 0.299, 0)))
    assert (near.shown, near.apart, near.size) == (((0,), (0,)), ((), ()), 0)
    assert difference_of(Detections.empty(), Detections.empty()).size == 0


def test_the_images_that_differ_and_the_files_that_do_not(
    records: Sequence[tuple[Parity, DetectionRecord]],
) -> None:
    section = images_section(records)
    assert section is not None
    worst, different, same = section.blocks
    assert isinstance(worst, Overlays)
    assert list(worst.choices) == ["ld_student.int8.onnx", *ALIKE]
    assert isinstance(different, Overlays)
    (images,) = different.choices.values()
    # Second image: 0.7 in PyTorch, 0.6 deployed; first: 0.8 and 0.75, and the pair moved by 0.5 of 20.5 and 0.02.
    assert [one.caption.partition(":")[0] for one in images] == ["0.png", "1.png"]
    assert [name for name, _ in images[0].panels] == ["ground truth", "PyTorch · ld_student", "ld_student.int8.onnx"]
    assert [[mark.wrong for mark in marks] for _, marks in images[0].panels] == [
        [False] * 2,
        [False, True],  # the pair moved by half a row
        [False, True],
    ]
    assert isinstance(same, Lines)
    (line,) = same.lines
    assert line.startswith("ld_student.onnx, student.onnx, teacher.onnx: no box with a score above 0.3 differs")


def test_where_no_file_differs_one_line_says_so(tmp_path: Path) -> None:
    run = write_models(tmp_path / "run", models=("teacher",))
    page = write_report([run], output=tmp_path / "report.html").path.read_text(encoding="utf-8")
    after = page[page.index("Most different from PyTorch") :]
    assert "teacher.onnx: no box with a score above 0.3 differs from PyTorch" in html.unescape(after)
    assert 'class="overlay"' not in after


# 4. PyTorch's time.


def test_pytorch_has_ap_and_time(material: Material) -> None:
    rows = {row.name: row for row in join_rows(material)}
    assert (rows["PyTorch · ld_student"].accuracy.ap, rows["PyTorch · ld_student"].milliseconds) == (0.36, PYTORCH_MS)
    assert rows["PyTorch · teacher"].milliseconds is None  # nobody timed it
    assert rows["ld_student.onnx"].speed == PYTORCH_MS / 4.5
    assert rows["ld_student.int8.onnx"].speed == PYTORCH_MS / 3
    assert rows["teacher.onnx"].speed is None
    assert rows["mmdet inference_detector · ld_student"].accuracy.ap is None
    assert len(rows) == 8
    section = models_section(list(rows.values()), ())
    assert section is not None
    chart = section.blocks[-1]
    assert isinstance(chart, Chart)
    beaten = next(one for one in chart.traces if one["name"] == "beaten")
    assert "PyTorch · ld_student" in beaten["text"]
    assert PYTORCH_MS in beaten["x"]


# 5. The first screen, and the page.


def test_a_line_for_each_file(material: Material) -> None:
    found = summary(material, join_rows(material))
    assert [(one.name, one.good, one.figures) for one in found.verdicts] == [
        ("ld_student.onnx", True, ("0.360", "+0.0000", "4.5", "4.0x")),
        ("ld_student.int8.onnx", True, ("0.352", "-0.0080", "3.0", "6.0x")),
        ("student.onnx", True, ("0.310", "+0.0000", "4.0", "-")),
        ("teacher.onnx", True, ("0.420", "+0.0000", "8.0", "-")),
    ]
    assert found.sentences[0] == (True, "4 of 4 deployed files agree with PyTorch.")
    assert "recommend, on 2 images: take ld_student.int8.onnx" in found.sentences[1][1]


def plots(page: Any) -> int:
    count: int = page.evaluate("plots.length")
    return count


def height(page: Any) -> int:
    page.evaluate("plots.forEach(show)")
    found: int = page.evaluate("document.documentElement.scrollHeight")
    return found


@pytest.mark.parametrize("width", [1280, 400])
def test_more_models_make_the_page_hardly_longer(page: Path, browser: Browser, tmp_path: Path, width: int) -> None:
    one = write_models(tmp_path / "run", models=("ld_student",))
    write_recommendation(one / "recommend.json")
    alone = write_report([one], output=tmp_path / "report.html").path
    with browser.open(page, width=width) as opened, browser.open(alone, width=width) as single:
        assert plots(opened.page) == plots(single.page)
        assert height(opened.page) < 1.15 * height(single.page)


def test_the_first_screen_has_every_verdict(page: Path, browser: Browser) -> None:
    for width, tall in ((1280, 900), (400, 850)):
        with browser.open(page, width=width, height=tall) as opened:
            bottom = opened.page.evaluate("document.querySelector('header').getBoundingClientRect().bottom")
            assert bottom < tall
            assert opened.page.evaluate("document.documentElement.scrollWidth") == width
            rows = "[...document.querySelectorAll('.glance tbody tr')].map(row => row.innerText)"
            assert [text.split()[0] for text in opened.page.evaluate(rows)] == FILES


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_choices_in_a_browser(page: Path, browser: Browser, scheme: str) -> None:
    with browser.open(page, scheme="dark" if scheme == "dark" else "light") as opened:
        one = opened.page
        one.evaluate("plots.forEach(show)")
        chart = one.locator("#models .chart")
        chart.locator("select").select_option("recommend, recommend.json")
        assert chart.locator(".point").count() == 3
        point = chart.locator(".point").first  # beaten points are drawn first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        one.wait_for_selector("#models .hoverlayer .hovertext")
        said = one.locator("#models .hoverlayer").text_content() or ""
        assert "ld-deploy detect" in said
        chart.locator("select").select_option("verify and bench")
        assert chart.locator(".point").count() == 5
        images = one.locator("#images .overlays").first
        assert images.locator("[data-choice]:visible").get_attribute("data-choice") == "ld_student.int8.onnx"
        images.locator("select").select_option("student.onnx")
        assert images.locator("[data-choice]:visible").get_attribute("data-choice") == "student.onnx"
        curves = one.locator("#accuracy .chart").last
        curves.locator("select").nth(0).select_option("IoU 0.75")
        curves.locator("select").nth(1).select_option("disc")
        # One of the three references and of the four files each.
        assert curves.locator(".scatterlayer .trace").count() == 7
        assert opened.problems == []
        assert opened.requests == []
