from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser import Browser

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class DemoRun:
    """A finished demo of the smallest scale, interrupted in the teacher's second epoch and called again.

    Args:
        output: its folder, .../outputs/demo.
        screen: what the second call showed.
        first_step: where that call's training began.
        epoch_steps: steps of an epoch: 100 images, batches of 4.
    """

    output: Path
    screen: str = ""
    first_step: int = 0
    epoch_steps: int = 25

    def call(self) -> str:
        """Runs the demo on this folder again; what the screen shows."""
        from ld_deploy.demo.pipeline import run_demo
        from ld_deploy.demo.scales import SCALES

        stream = io.StringIO()
        console = Console(file=stream, width=100)
        run_demo(self.output, scale=SCALES["tiny"], configs=ROOT / "configs" / "demo", console=console)
        return stream.getvalue()


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    from ld_deploy.demo import pipeline
    from ld_deploy.demo.training import Tick

    started = DemoRun(tmp_path_factory.mktemp("demo") / "outputs" / "demo")
    ticks: list[Tick] = []

    def interrupting(_bar: object) -> Any:
        def tell(tick: Tick) -> None:
            if tick.step == started.epoch_steps + 5:
                raise KeyboardInterrupt

        return tell

    def recording(_bar: object) -> Any:
        return ticks.append

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "ticker", interrupting)
        with pytest.raises(KeyboardInterrupt):
            started.call()
        patch.setattr(pipeline, "ticker", recording)
        screen = started.call()
    return DemoRun(started.output, screen, ticks[0].step)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A running Chromium. Of a module, not of the session: Playwright leaves an event loop running while it lives,
    in which tests with an `asyncio.run` of their own would fail."""
    from tests.browser import NoBrowserError, running_browser

    try:
        with running_browser() as found:
            yield found
    except NoBrowserError as error:
        if os.environ.get("LD_DEPLOY_REQUIRE_BROWSER") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))
