"""The batch that `bench_train` times: the first one of the config's training set, or random images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.runner import Runner, set_random_seed
from mmengine.structures import InstanceData

from ld_deploy.bench_train_steps import Stopwatch
from ld_deploy.compat import allow_checkpoint_classes
from ld_runtime.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

RANDOM_BOXES = 8  # an image of COCO has 7.3 on average


@dataclass(frozen=True, eq=False)
class TrainBatch:
    """A batch as a detector gets it.

    Args:
        inputs: float32 (N, 3, H, W), normalised, on the device.
        data_samples: N mmdet `DetDataSample` with ground truth.
        source: `train set` or `random`.
    """

    inputs: torch.Tensor
    data_samples: Sequence[Any]
    source: str

    @property
    def box_count(self) -> int:
        """Ground-truth boxes of all images."""
        return sum(len(sample.gt_instances) for sample in self.data_samples)


class DataRunner:
    """Reads batches of the config's training set in this process: span `data`, file to device.

    Args:
        config: with a `train_dataloader`; its workers are not used.
        preprocessor: of the detector, on its device.
        batch_size: images; None: the config's.
        clock: a key of `CLOCKS`.

    Raises:
        DataError: The data set is not there.
    """

    name = "data"

    def __init__(self, config: Config, preprocessor: Any, *, batch_size: int | None, clock: str = "wall") -> None:
        loader = Config(config.train_dataloader.to_dict())
        loader.merge_from_dict({"num_workers": 0, "persistent_workers": False})
        loader.pop("prefetch_factor", None)
        loader.batch_size = batch_size or loader.batch_size
        set_random_seed(0)
        allow_checkpoint_classes()
        try:
            self._loader = Runner.build_dataloader(loader, seed=0)
        except OSError as error:
            message = f"the training data is not there ({error}): or give --size HxW, which times random images"
            raise DataError(message) from error
        self._preprocessor, self._clock = preprocessor, clock
        self._batches: Iterator[Any] = iter(())
        batch = self._next()
        self.first = TrainBatch(batch["inputs"], batch["data_samples"], "train set")

    def _next(self) -> dict[str, Any]:
        raw = next(self._batches, None)
        if raw is None:
            self._batches = iter(self._loader)
            raw = next(self._batches)
        batch: dict[str, Any] = self._preprocessor(raw, training=True)
        return batch

    def __call__(self) -> dict[str, float]:  # noqa: D102 - the protocol says it
        watch = Stopwatch(self.first.inputs.device, clock=self._clock)
        self._next()
        return watch.stop(self.name)


def random_batch(preprocessor: Any, *, input_hw: tuple[int, int], images: int, classes: int) -> TrainBatch:
    """Noise with boxes anywhere, their sides between 16 pixels and the image's, each size of a side as likely in log.

    The same on every call.

    Args:
        preprocessor: of the detector, on its device.
        input_hw: height and width in pixels, before padding.
        images: N.
        classes: of the labels.
    """
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor([float(input_hw[1]), float(input_hw[0])])
    samples = []
    for _ in range(images):
        sides = (16 / limit) ** torch.rand(RANDOM_BOXES, 2, generator=generator) * limit
        corner = torch.rand(RANDOM_BOXES, 2, generator=generator) * (limit - sides)
        labels = torch.randint(classes, (RANDOM_BOXES,), generator=generator)
        instances = InstanceData(bboxes=torch.cat((corner, corner + sides), dim=1), labels=labels)
        sample = DetDataSample(metainfo={"img_shape": input_hw, "ori_shape": input_hw, "scale_factor": (1.0, 1.0)})
        sample.gt_instances = instances
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=labels[:0])
        samples.append(sample)
    pixels = torch.randint(256, (images, 3, *input_hw), dtype=torch.uint8, generator=generator)
    batch = preprocessor({"inputs": list(pixels), "data_samples": samples}, training=True)
    return TrainBatch(batch["inputs"], batch["data_samples"], "random")
