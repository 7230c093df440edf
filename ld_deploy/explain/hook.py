from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop

from ld_deploy.distill.detector import DistilledDetector
from ld_deploy.explain.edge_picture import edge_figure
from ld_deploy.explain.panels import save_png
from ld_deploy.explain.positives import choose_positives
from ld_deploy.explain.region_picture import region_figure, region_weights
from ld_deploy.explain.shares import GradientMeter, is_part, shares, short_name
from ld_deploy.explain.stills import load_stills, look
from ld_deploy.explain.table import describe

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

PICTURED_TIMES = 4  # in a schedule, besides its start


@HOOKS.register_module()
class ExplainDistillation(Hook):
    """A distilled training tells what it does; its result is the same to the bit without.

    - At the start the log has a table of the terms, and what is known of the teacher.
    - Each step's log has `share_NAME`, the share of each `loss_NAME` in the total loss (means of the log's window), and
      `grad_NAME`, its share of the gradient: its norm at the neck's outputs over the sum of all parts' norms, measured
      every `gradient_interval` steps and repeated in between. The norms of opposing gradients add up, too: a share is
      a size, not a direction.
    - WORK_DIR/pictures has, for a few fixed training images, at the start, at intervals and at the end: the regions,
      and edge distributions of student and teacher.

    Under torchrun every process takes part in the forwards, whose losses reduce over all of them; the main one writes.
    Gradients are those of its own images. A detector without a teacher is left alone.

    Args:
        interval: epochs between pictures, or iterations where the training counts those; None: a quarter of the
            schedule. There are pictures at its end in any case.
        images: in the pictures; 0 draws none.
        positives: whose edge distributions are drawn, of each image.
        gradient_interval: steps between measurements, each of which costs a backward through the head for every part
            of the loss; 0 measures none.
    """

    def __init__(
        self, *, interval: int | None = None, images: int = 2, positives: int = 3, gradient_interval: int = 100
    ) -> None:
        self.interval = interval
        self.images = images
        self.positives = positives
        self.gradient_interval = gradient_interval
        self._model: Any = None
        self._stills: list[dict[str, Any]] = []
        self._meter: GradientMeter | None = None
        self._drawn = -1  # epochs or iterations that the last pictures show

    def before_train(self, runner: Runner) -> None:
        """Writes the table, and the first pictures: what is wrong there need not be trained first."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, DistilledDetector):
            return
        self._model = model
        if is_main_process():
            runner.logger.info("\n%s", describe(model, teacher=runner.cfg.model.teacher))
        if self.images:
            self._stills = load_stills(runner.train_dataloader.dataset, count=self.images)
        if runner.iter == 0:
            self._draw(runner, 0)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:  # noqa: ARG002
        """Gets ready to measure gradients where this step's are wanted."""
        if self._model is not None and self.gradient_interval and runner.iter % self.gradient_interval == 0:
            scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
            self._meter = GradientMeter(self._model, scale=scaler.get_scale() if scaler else 1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,  # noqa: ARG002 - mmengine's hook
        data_batch: Any = None,  # noqa: ARG002
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Gives the shares to the log, after mmengine's own hook gave it the losses."""
        if self._model is None:
            return
        hub, window = runner.message_hub, runner.log_processor.window_size
        means = {key: float(hub.get_scalar(f"train/{key}").mean(window)) for key in outputs or () if is_part(key)}
        found = {f"share_{short_name(key)}": value for key, value in shares(means).items()}
        if self._meter is not None:
            self._meter.close()
            found |= {f"grad_{short_name(key)}": value for key, value in shares(self._meter.norms).items()}
            self._meter = None
        for key, value in found.items():
            hub.update_scalar(f"train/{key}", value)
        if not counts_epochs(runner) and (runner.iter + 1) % self._picture_interval(runner) == 0:
            self._draw(runner, runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """Draws where this epoch's pictures are wanted."""
        if self._model is not None and counts_epochs(runner):
            done = runner.epoch + 1
            if done % self._picture_interval(runner) == 0:
                self._draw(runner, done)

    def after_train(self, runner: Runner) -> None:
        """Draws the end, also where it came early."""
        done = runner.epoch if counts_epochs(runner) else runner.iter
        if self._model is not None and done != self._drawn:
            self._draw(runner, done)

    def _picture_interval(self, runner: Runner) -> int:
        steps = runner.max_epochs if counts_epochs(runner) else runner.max_iters
        return self.interval or math.ceil(steps / PICTURED_TIMES)

    def _draw(self, runner: Runner, done: int) -> None:
        """All pictures after `done` epochs or iterations."""
        self._drawn = done
        unit = "epoch" if counts_epochs(runner) else "iter"
        folder = Path(runner.work_dir) / "pictures"
        classes = runner.train_dataloader.dataset.metainfo["classes"]
        for number, still in enumerate(self._stills, start=1):
            seen = look(self._model, still)
            if not is_main_process():
                continue
            where = f"training image {number}, {unit} {done}"
            figure = region_figure(seen, region_weights(self._model, seen), title=f"where it distils: {where}")
            save_png(figure, folder / f"{unit}_{done}_image_{number}_regions.png")
            positives = choose_positives(self._model, seen, count=self.positives)
            if positives:
                title = f"edge distributions at positive locations: {where}"
                temperature = edge_temperature(self._model)
                figure = edge_figure(seen, positives, classes=classes, temperature=temperature, title=title)
                save_png(figure, folder / f"{unit}_{done}_image_{number}_edges.png")
        if self._stills and is_main_process():
            runner.logger.info("pictures: %s", folder / f"{unit}_{done}_*.png")


def counts_epochs(runner: Runner) -> bool:
    """Whether the training's schedule is in epochs."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def edge_temperature(model: Any) -> float:
    """Of the first term that compares edge distributions; 1 where none does."""
    return next((float(term.temperature) for term in model.distillation.terms if term.needs_edges), 1.0)


def add_explanation(config: Config) -> None:
    """Adds the hook to a config that does not name it, in place."""
    hooks = list(config.get("custom_hooks") or [])
    if not any(hook["type"] in (ExplainDistillation, ExplainDistillation.__name__) for hook in hooks):
        config.custom_hooks = [*hooks, {"type": ExplainDistillation.__name__}]
