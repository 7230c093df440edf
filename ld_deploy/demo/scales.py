"""How large the demo is: the same pipeline in minutes, or in seconds for a test."""

from __future__ import annotations

from dataclasses import dataclass

from ld_deploy.demo.shapes import RenderSettings


@dataclass(frozen=True)
class DemoScale:
    """Sizes of a demo.

    Args:
        render: the data set.
        epochs: of each training; None takes the configs'.
        batch_size: images a step; None takes the configs'.
        max_seeds: trainings of both students; those after the first run only while the budget lasts.
        budget_s: seconds for all stages: decides about further seeds, and nothing else.
        bench_s: seconds of each runner and span.
        pictures: annotated test images in the report.
    """

    render: RenderSettings
    epochs: int | None = None
    batch_size: int | None = None
    max_seeds: int = 3
    budget_s: float = 660
    bench_s: float = 1.5
    pictures: int = 6


SCALES = {
    "full": DemoScale(RenderSettings(seed=0, num_train=800, num_val=100, num_test=250, image_hw=(128, 128))),
    "tiny": DemoScale(
        RenderSettings(seed=0, num_train=100, num_val=6, num_test=8, image_hw=(128, 128)),
        epochs=4,
        batch_size=4,
        max_seeds=1,
        budget_s=60,
        bench_s=0.1,
        pictures=2,
    ),
}
