"""The documentation: it builds, its Python runs, its commands exist, its figures are those of docs/results."""

from __future__ import annotations

import http.server
import json
import re
import shlex
import subprocess
import sys
import threading
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urldefrag

import cv2
import numpy as np
import pytest

from ld_runtime.cli import SUMMARIES, find_command

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser import Browser

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "pages").rglob("*.md"))
TEXTS = {str(page.relative_to(ROOT / "docs" / "pages")): page.read_text(encoding="utf-8") for page in PAGES}
BLOCKS = [
    (name, number, code)
    for name, text in TEXTS.items()
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
]
COMMANDS = sorted({line for text in TEXTS.values() for line in re.findall(r"^    (ld-deploy .*)$", text, re.MULTILINE)})
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
MAIN_PAGES = ("index", "quickstart", "how-to/parity", "concepts/nms", "api/runtime", "commands", "results")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    arguments = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-f", str(ROOT / "docs" / "mkdocs.yml")]
    environment = {"PATH": "", "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*arguments, "-d", str(folder)], capture_output=True, text=True, check=False, env=environment
    )
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def served(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def workplace(demo_run: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the pages see it: a demo in outputs/demo, an image, a clip."""
    root: Path = demo_run.output.parents[1]
    cv2.imwrite(str(root / "image.jpg"), np.full((90, 120, 3), 90, np.uint8))
    writer = cv2.VideoWriter(str(root / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (128, 96))
    for grey in (50, 90):
        writer.write(np.full((96, 128, 3), grey, np.uint8))
    writer.release()
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize(("name", "number", "code"), BLOCKS, ids=[f"{name}-{number}" for name, number, _ in BLOCKS])
def test_python_of_the_pages_runs(name: str, number: int, code: str, workplace: Path) -> None:
    exec(compile(code, f"{name}, block {number}", "exec"), {})


def test_every_block_of_code_is_run() -> None:
    for name, text in TEXTS.items():
        fences = re.findall(r"^```(.*)$", text, flags=re.MULTILINE)
        assert set(fences[::2]) <= {"python"}, name
        assert set(fences[1::2]) <= {""}, name
    assert len(BLOCKS) >= 6


def options_of(command: str) -> set[str]:
    import typer
    from typer.main import get_command

    app = typer.Typer(add_completion=False)
    app.command(command)(find_command(command).load())
    return {one for parameter in get_command(app).params for one in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_their_options_exist(line: str) -> None:
    _, command, *arguments = shlex.split(line)
    assert command in SUMMARIES
    assert {one for one in arguments if one.startswith("-")} <= options_of(command)
    for path in (one for one in arguments if one.startswith("configs/")):
        assert (ROOT / path).is_file()


def test_named_files_and_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for page, text in TEXTS.items():
        for name in re.findall(r"`((?:configs|runtime|export|docs|tests)/[\w./*-]+)`", text):
            assert list(ROOT.glob(name)), (page, name)
        assert set(re.findall(r"(?:`|    )make ([a-z-]+)", text)) <= targets, page


def test_messages_of_troubleshooting_are_in_the_code() -> None:
    """Each is a part of a message: literally, so that a reader finds by searching what the screen shows."""
    sources = [*(ROOT / "runtime/ld_runtime").rglob("*.py"), *(ROOT / "export/ld_export").rglob("*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in [*sources, *(ROOT / "ld_deploy").rglob("*.py")])
    rows = re.findall(r"^\| `([^`]+)` \|", TEXTS["how-to/troubleshooting.md"], flags=re.MULTILINE)
    assert len(rows) >= 20
    assert [row for row in rows if row not in code] == []


class Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := found.get(key))}
        if tag in ("a", "img", "script", "link"):
            self.targets += [value for key in ("href", "src") if (value := found.get(key))]


def test_links_lead_somewhere(site: Path) -> None:
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) >= 20
    for path, links in pages.items():
        for target in links.targets:
            where, anchor = urldefrag(target)
            assert not where.startswith(("http:", "//")), (path, target)
            if where.startswith(("https:", "data:")):
                continue
            file = (path.parent / unquote(where)).resolve() if where else path
            assert file.exists(), (path, target)
            if anchor and file in pages and anchor != "__skip":
                assert unquote(anchor) in pages[file].anchors, (path, target)


def test_api_pages_hold_what_they_name(site: Path) -> None:
    for name in ("runtime", "export", "deploy"):
        text = (site / "api" / f"{name}.html").read_text(encoding="utf-8")
        for identifier in re.findall(r"^::: (\S+)$", TEXTS[f"api/{name}.md"], flags=re.MULTILINE):
            assert f'id="{identifier}' in text, identifier
    assert "score_threshold" in (site / "api" / "runtime.html").read_text(encoding="utf-8")


def test_command_reference_has_every_command_and_option(site: Path) -> None:
    text = (site / "commands.html").read_text(encoding="utf-8")
    for command in SUMMARIES:
        assert f'id="{command}"' in text
        for option in options_of(command) - {"--help"}:
            if option.startswith("-"):
                assert f"<code>{option}</code>" in text, (command, option)


def test_figures_are_those_of_the_results(site: Path) -> None:
    text = (site / "results.html").read_text(encoding="utf-8")
    results = ROOT / "docs" / "results"
    demo = json.loads((results / "demo.json").read_text(encoding="utf-8"))
    for row in demo["rows"]:
        assert f">{row['ap']:.3f}</td>" in text
    for one in json.loads((results / "speed_bccd.json").read_text(encoding="utf-8"))["measurements"]:
        assert f">{one['spans']['end_to_end']['median_ms']:.1f}</td>" in text
    assert "{{ table" not in "".join(page.read_text(encoding="utf-8") for page in site.rglob("*.html"))


def test_formulas_are_mathml(site: Path) -> None:
    for name, least in (("distillation", 2), ("nms", 2)):
        text = (site / "concepts" / f"{name}.html").read_text(encoding="utf-8")
        assert text.count('display="block"') >= least
        assert "$" not in re.sub(r"<(script|pre|code).*?</\1>", "", text, flags=re.DOTALL)


def test_notebook_runs(workplace: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(book, timeout=120, resources={"metadata": {"path": str(workplace)}}).execute()
    outputs = [cell["outputs"] for cell in book.cells if cell["cell_type"] == "code"]
    difference, matched_share = map(float, outputs[-1][0]["text"].split())
    assert abs(difference) <= 0.0002
    assert matched_share >= 0.999
    assert eval(outputs[2][0]["data"]["text/plain"]).keys() == {f"{number:06d}.png" for number in range(8)}
    assert len(eval(outputs[5][0]["data"]["text/plain"])) == 5  # frames of the video


def test_notebook_is_committed_without_outputs() -> None:
    for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


def test_pictures_are_small() -> None:
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    assert {"detections.jpg", "regions.jpg", "edges.jpg", "spans.png", "ap_ms.png"} <= set(sizes)
    assert max(sizes.values()) <= 200_000
    assert sum(sizes.values()) <= 1_000_000


@pytest.mark.parametrize("name", MAIN_PAGES)
@pytest.mark.parametrize("width", [1280, 400])
def test_pages_open_in_a_browser(name: str, width: int, served: str, browser: Browser) -> None:
    with browser.open(f"{served}/{name}.html", width=width, scheme="dark" if width == 400 else "light") as opened:
        opened.page.wait_for_load_state("networkidle")
        assert opened.problems == []
        assert [one for one in opened.requests if not one.startswith(served)] == []
        assert opened.page.locator("h1").first.is_visible()
        wide = opened.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0  # nothing sticks out to the side
        broken = "[...document.images].filter(one => one.complete && one.naturalWidth === 0).length"
        assert opened.page.evaluate(broken) == 0


def test_a_page_opens_from_disk(site: Path, browser: Browser) -> None:
    with browser.open(site / "index.html") as opened:
        assert opened.page.locator("h1").first.is_visible()
        assert [one for one in opened.requests if not one.startswith("file:")] == []
        assert opened.problems == []


@pytest.mark.parametrize("disk", [True, False])
def test_search_finds(disk: bool, site: Path, served: str, browser: Browser) -> None:
    with browser.open(site / "index.html" if disk else f"{served}/index.html") as opened:
        opened.page.locator("input.md-search__input").click()
        opened.page.locator("input.md-search__input").press_sequentially("bootstrap")
        found = opened.page.locator(".md-search-result__link").first
        found.wait_for(timeout=10_000)
        assert "precision" in str(found.get_attribute("href")) or "parity" in str(found.get_attribute("href"))
        assert opened.problems == []
