"""Pages in a real browser, and what it complains about. The fixture `browser` of tests/conftest.py opens them."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from playwright.sync_api import Error, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser as Chromium
    from playwright.sync_api import Page, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


class NoBrowserError(Exception):
    """There is no Chromium, or it does not start."""


def find_browser(playwright: Playwright) -> str | None:
    """The system's Chromium or Chrome, else the one that `playwright install` brought; None without either."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and Path(playwright.chromium.executable_path).is_file():
        found = playwright.chromium.executable_path
    return found


@dataclass(frozen=True)
class Opened:
    """A page in the browser.

    Args:
        page: Playwright's.
        problems: console errors and warnings, errors of scripts, requests that failed or were answered by an error.
        requests: every address asked for but the page's own and `data:`.
    """

    page: Page
    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Browser:
    """A running Chromium."""

    chromium: Chromium

    @contextmanager
    def open(
        self,
        page: Path | str,
        *,
        width: int = 1280,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
        scale: float = 1,
        allow_network: bool = False,
    ) -> Iterator[Opened]:
        """Opens a file or an address, and waits until it is loaded.

        Args:
            page: a file or an address.
            width: of the window in CSS pixels.
            height: likewise.
            scheme: what the reader's system prefers.
            scale: device pixels to a CSS pixel.
            allow_network: without it every request that leaves this machine is refused, and is a problem.
        """
        address = page.resolve().as_uri() if isinstance(page, Path) else page
        context = self.chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            device_scale_factor=scale,
            offline=not allow_network and address.startswith("file:"),
        )
        try:
            opened = Opened(context.new_page())
            watch(opened, address)
            opened.page.goto(address, wait_until="load")
            yield opened
        finally:
            context.close()


def watch(opened: Opened, address: str) -> None:
    """Gathers what goes wrong on a page."""
    page, problems = opened.page, opened.problems
    page.on("console", lambda one: problems.append(f"console {one.type}: {one.text}") if one.type in LOUD else None)
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("requestfailed", lambda one: problems.append(f"request failed: {one.url} ({one.failure})"))
    page.on("response", lambda one: problems.append(f"status {one.status}: {one.url}") if one.status >= 400 else None)
    page.on("request", lambda one: opened.requests.append(one.url) if is_elsewhere(one.url, address) else None)


LOUD = ("error", "warning")


def is_elsewhere(url: str, address: str) -> bool:
    """Whether a request is for more than the page itself."""
    return not url.startswith("data:") and url.partition("#")[0] != address.partition("#")[0]


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Starts Chromium and stops it.

    Raises:
        NoBrowserError: There is none, or it does not start.
    """
    with sync_playwright() as playwright:
        executable = find_browser(playwright)
        if executable is None:
            raise NoBrowserError(f"none of {', '.join(NAMES)} is on PATH: `make browser` installs one")
        try:
            chromium = playwright.chromium.launch(executable_path=executable, args=[*FLAGS])
        except Error as error:
            raise NoBrowserError(f"{executable} does not start: {error}") from error
        try:
            yield Browser(chromium)
        finally:
            chromium.close()
