"""The fixture sees what a page does wrong: without that, a test that a page is clean would show nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ld_runtime.commands.doctor import BROWSERS
from tests.browser import NAMES

if TYPE_CHECKING:
    from tests.browser import Browser


def page(folder: Path, body: str) -> Path:
    path = folder / "page.html"
    path.write_text(f"<!doctype html><meta charset='utf-8'><title>t</title><body>{body}</body>", encoding="utf-8")
    return path


def test_a_clean_page(browser: Browser, tmp_path: Path) -> None:
    body = "<h1>hello</h1><img src='data:image/svg+xml,<svg xmlns=%22http://www.w3.org/2000/svg%22/>'>"
    with browser.open(page(tmp_path, body), width=375) as opened:
        assert opened.page.inner_text("h1") == "hello"
        assert opened.page.evaluate("innerWidth") == 375
        assert not opened.problems
        assert not opened.requests


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<script>console.error('no such thing')</script>", "console error: no such thing"),
        ("<script>console.warn('old')</script>", "console warning: old"),
        ("<script>undefinedFunction()</script>", "undefinedFunction is not defined"),
        ("<img src='missing.png'>", "request failed"),
        ("<img src='http://192.0.2.1/a.png'>", "request failed: http://192.0.2.1/a.png"),
    ],
)
def test_what_is_wrong_is_seen(browser: Browser, tmp_path: Path, body: str, problem: str) -> None:
    with browser.open(page(tmp_path, body)) as opened:
        opened.page.wait_for_timeout(50)
        assert any(problem in one for one in opened.problems), opened.problems
        assert bool(opened.requests) == ("src=" in body)


def test_the_readers_scheme_reaches_the_page(browser: Browser, tmp_path: Path) -> None:
    for scheme in ("light", "dark"):
        with browser.open(page(tmp_path, ""), scheme=scheme) as opened:
            assert opened.page.evaluate(f"matchMedia('(prefers-color-scheme: {scheme})').matches")


def test_doctor_looks_for_the_same_ones() -> None:
    assert BROWSERS == NAMES
    script = Path(__file__).with_name("get_browser.sh").read_text(encoding="utf-8")
    assert f"for name in {' '.join(NAMES)}; do" in script
