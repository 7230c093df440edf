"""The demo from the data set to the report, one stage after the other, each done once."""

from __future__ import annotations

import contextlib
import platform
from importlib.metadata import version
from typing import TYPE_CHECKING

from ld_deploy.demo.deployment import bench_models, detect_images, export_models, quantize_product, verify_models
from ld_deploy.demo.report import QUANTIZED, gather_rows, screen_table, verdicts, write_report
from ld_deploy.demo.screen import Screen, StageBar, minutes
from ld_deploy.demo.shapes import manifest_of, render
from ld_deploy.demo.stages import Outcome, StageBook, StageResult, key_of
from ld_deploy.demo.training import Tick, TrainingPlan, resolve_config, run_training
from ld_runtime.errors import ConfigError, ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from rich.console import Console

    from ld_deploy.demo.scales import DemoScale

ROLES = ("teacher", "student", "ld_student")
STUDENTS = ROLES[1:]
LOG = "log.txt"
TITLES = {
    "data": "render the data set",
    "teacher": "train the teacher",
    "student": "train the student alone",
    "ld_student": "train the student with the teacher",
    "seeds": "further seeds of both students",
    "export": "export to ONNX",
    "quantize": "quantize to INT8",
    "verify": "verify ONNX against PyTorch",
    "bench": "benchmark",
    "detect": "detect and draw",
    "report": "report",
}
# Seconds at scale `full` on two cores. Only their ratios count, for the guess of what remains.
EXPECTED_S = {"data": 8, "teacher": 190, "student": 80, "ld_student": 140, "seeds": 0}
EXPECTED_S |= {"export": 45, "quantize": 20, "verify": 25, "bench": 35, "detect": 5, "report": 10}


def run_demo(output: Path, *, scale: DemoScale, configs: Path, console: Console) -> Path:
    """Runs every stage that is not there yet.

    Args:
        output: folder for everything; a second call with the same one goes on where the first was interrupted.
        scale: sizes.
        configs: folder with teacher.py, student.py and ld_student.py.
        console: for progress; it must write to a stream of its own, because whatever libraries print goes to
            `output`/log.txt.

    Returns:
        `output`/report.md.

    Raises:
        ConfigError: A config is missing.
        ParityError: A float file does not agree with PyTorch; the report is there all the same.
    """
    for role in ROLES:
        if not (configs / f"{role}.py").is_file():
            message = f"there is no {configs / f'{role}.py'}: run in a checkout of the project, or name --configs"
            raise ConfigError(message)
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    with (
        (output / LOG).open("a", encoding="utf-8", buffering=1) as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        demo = Demo(output, scale=scale, configs=configs, screen=Screen(console, stages=len(TITLES)))
        try:
            demo.run()
        except BaseException:
            console.print(f"stopped; the log is {output / LOG}. The same command goes on from here.", soft_wrap=True)
            raise
    report = output / "report.md"
    rows = gather_rows(demo.book.results)
    console.print(screen_table(rows))
    for line in (
        *verdicts(rows),
        f"{minutes(demo.book.elapsed_s())} in all; report: {report}, and report.html",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    checks = demo.book.results["verify"].content["reports"].values()
    # What INT8 costs is in the table and the verdicts; the float files must be as good as PyTorch.
    lines = [line for check in checks for line in check["failures"]]
    failures = [line for line in lines if not line.startswith(f"{QUANTIZED}.onnx:")]
    if failures:
        raise ParityError(f"{'; '.join(failures)}; see {report}")
    return report


class Demo:
    """One walk over the stages of an output folder: see `run_demo`."""

    def __init__(self, output: Path, *, scale: DemoScale, configs: Path, screen: Screen) -> None:
        self.output = output
        self.scale = scale
        self.configs = configs
        self.screen = screen
        self.book = StageBook(output)
        self.versions = {name: version(name) for name in ("ld-deploy", "torch", "mmdet")}
        self.versions["python"] = platform.python_version()

    def run(self) -> None:
        """All stages in order."""
        self.stage("data", inputs=manifest_of(self.scale.render), work=self.make_data)
        for role in ROLES:
            self.train(role, seed=0)
        self.further_seeds()
        trained = {role: self.book.results[role].key for role in ROLES}
        self.stage("export", inputs=trained, work=lambda bar: export_models(self.output, ROLES, say=bar.say))
        exported = {"export": self.book.results["export"].key}
        self.stage("quantize", inputs=exported, work=lambda bar: quantize_product(self.output, say=bar.say))
        exported["quantize"] = self.book.results["quantize"].key
        self.stage("verify", inputs=exported, work=lambda bar: verify_models(self.output, ROLES, say=bar.say))
        seconds = self.scale.bench_s
        self.stage(
            "bench",
            inputs={**exported, "seconds": seconds},
            work=lambda bar: bench_models(self.output, ROLES, seconds=seconds, say=bar.say),
        )
        self.stage("detect", inputs=exported, work=lambda bar: detect_images(self.output, say=bar.say))
        everything = {name: result.key for name, result in self.book.results.items()}
        everything["pictures"] = str(self.scale.pictures)
        self.stage("report", inputs=everything, work=self.report)

    def stage(
        self,
        name: str,
        *,
        inputs: Mapping[str, Any],
        work: Callable[[StageBar], Outcome],
        title: str | None = None,
    ) -> StageResult:
        """Finds or does one stage, with its bar and its line.

        Args:
            name: a key of `TITLES`, or of a training of a further seed.
            inputs: all that the result depends on, beside the versions of the tools.
            work: does it.
            title: of a training of a further seed, which does not count as a stage of its own.
        """
        if title is None:
            title = TITLES[name]
            self.screen.number += 1

        def with_bar() -> Outcome:
            with self.screen.bar(title) as bar:
                return work(bar)

        result, done_now = self.book.run(name, key=self.key(inputs), work=with_bar)
        self.screen.line(
            title,
            summary=result.summary,
            elapsed_s=result.elapsed_s,
            done_now=done_now,
            remaining_s=self.remaining_s(),
        )
        return result

    def key(self, inputs: Mapping[str, Any]) -> str:
        """Of a stage with these inputs."""
        return key_of({"versions": self.versions, **inputs})

    def remaining_s(self) -> float:
        """A guess, from how long the stages so far took, without further seeds."""
        done = [name for name in self.book.results if name in EXPECTED_S]
        slowness = sum(self.book.results[name].elapsed_s for name in done) / max(
            1, sum(map(EXPECTED_S.__getitem__, done))
        )
        return slowness * sum(seconds for name, seconds in EXPECTED_S.items() if name not in done)

    def make_data(self, bar: StageBar) -> Outcome:
        """Renders the data set."""
        bar.say("images and annotations")
        settings = self.scale.render
        render(self.output / "data", settings=settings)
        count = f"{settings.num_train} + {settings.num_val} + {settings.num_test}"
        return Outcome(f"{count} images", {}, ("data/manifest.json",))

    def train(self, role: str, *, seed: int) -> StageResult:
        """Trains one role with one seed."""
        name = role if seed == 0 else f"{role}_seed{seed}"
        config_file = self.configs / f"{role}.py"
        plan = TrainingPlan(name, config_file, seed=seed, epochs=self.scale.epochs, batch_size=self.scale.batch_size)
        config = resolve_config(plan, output=self.output)
        inputs = {
            "config": config.pretty_text.replace(str(self.output), "OUTPUT"),
            "data": self.book.results["data"].key,
            "teacher": self.book.results["teacher"].key if role == "ld_student" else "",
        }

        def work(bar: StageBar) -> Outcome:
            return run_training(plan, config, output=self.output, key=self.key(inputs), tell=ticker(bar))

        title = None if seed == 0 else f"  seed {seed}: {'with' if role == 'ld_student' else 'without'} the teacher"
        return self.stage(name, inputs=inputs, work=work, title=title)

    def further_seeds(self) -> None:
        """Trains both students again with other seeds while the budget lasts, so that the report can state a spread."""
        self.screen.number += 1
        pair_s = sum(self.book.results[role].elapsed_s for role in STUDENTS)
        for seed in range(1, self.scale.max_seeds):
            done_before = all(self.book.path(f"{role}_seed{seed}").is_file() for role in STUDENTS)
            needed_s = self.book.elapsed_s() + pair_s + self.remaining_s()
            if not done_before and needed_s > self.scale.budget_s:
                budget = minutes(self.scale.budget_s)
                self.screen.note(TITLES["seeds"], f"none more: it would take {minutes(needed_s)} in all, of {budget}")
                break
            for role in STUDENTS:
                self.train(role, seed=seed)

    def report(self, bar: StageBar) -> Outcome:
        """Tables and pictures."""
        bar.say("tables and pictures")
        return write_report(self.output, results=self.book.results, pictures=self.scale.pictures)


def ticker(bar: StageBar) -> Callable[[Tick], None]:
    """Shows where a training stands: loss, and validation AP once there is one."""
    shown = {"loss": "", "ap": ""}

    def tell(tick: Tick) -> None:
        if tick.loss is not None:
            shown["loss"] = f"loss {tick.loss:.2f}"
        if tick.ap is not None:
            shown["ap"] = f", val AP {tick.ap:.3f}"
        bar.advance(tick.step, tick.steps, "".join(shown.values()))

    return tell
