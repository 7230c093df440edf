"""PyTorch beside the deployed file in `ld-deploy bench --against CHECKPOINT`."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.dataset import Compose
from torch._dynamo.exc import TorchDynamoException

from ld_deploy.checkpoint import load_model, random_model, read_checkpoint
from ld_deploy.config import load_config, student_only
from ld_runtime.bench_report import sha256_of
from ld_runtime.errors import BackendMissingError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ld_runtime.bench import Runner


def checkpoint_config(checkpoint: Path) -> Config:
    """The config that training wrote into a checkpoint.

    Raises:
        CheckpointError: It holds none.
    """
    text = read_checkpoint(checkpoint).get("meta", {}).get("cfg")
    if not text:
        raise CheckpointError(f"{checkpoint} does not hold its config: give one that `ld-deploy train` wrote")
    return Config.fromstring(text, ".py")


def reference_model(source: Path, *, device: str) -> tuple[Any, Config]:
    """A model in eval mode, and its config.

    Args:
        source: a checkpoint that `ld-deploy train` wrote, or a config, whose weights are then random: they take the
            same time.
        device: torch's name.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        ConfigError: The config cannot be read.
    """
    if source.suffix == ".py":
        config = student_only(load_config(source))
        return random_model(config, device=device), config
    config = checkpoint_config(source)
    return load_model(config, source, device=device), config


def reference_runners(checkpoint: Path, device: str, *, compiled: bool = False) -> Sequence[Runner]:
    """PyTorch with its stages apart, and mmdet's `inference_detector` as a whole, on the same model.

    Args:
        checkpoint: that `ld-deploy train` wrote, or a config.
        device: `cpu`, `cuda` or `cuda:N`.
        compiled: also PyTorch with its network through torch.compile.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        BackendMissingError: torch does not see the device.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendMissingError(f"device {device} was asked for and torch sees no GPU: use --device cpu")
    model, config = reference_model(checkpoint, device=device)
    model.cfg = config
    settings = {
        "precision": "fp32",
        "threads": torch.get_num_threads(),
        "score_threshold": config.model.test_cfg.score_thr,
        # As in the JSON of `ld-deploy verify`, by which a report joins AP and time; a config has no weights to name.
        **({} if checkpoint.suffix == ".py" else {"checkpoint_sha256": sha256_of(checkpoint)}),
    }
    runners: list[Runner] = [PyTorchRunner(model, config, settings=settings)]
    if compiled:
        runners.append(CompiledRunner(model, config, settings=settings))
    return [*runners, InferenceDetectorRunner(model, config, settings=settings)]


class PyTorchRunner:
    """mmdet's test pipeline and `predict`, with the voting NMS of the config."""

    name = "PyTorch"

    def __init__(self, model: Any, config: Config, *, settings: Mapping[str, str | int | float]) -> None:
        self.settings = settings
        self._model = model
        load, *rest = without_annotations(config)
        self._load, self._rest = Compose([load]), Compose(rest)

    def decode(self, path: Path) -> Any:  # noqa: D102 - the protocol says it
        return self._load({"img_path": str(path), "img_id": 0})

    def preprocess(self, image: Any) -> Any:  # noqa: D102
        return self._rest(dict(image))

    def canvas_hw(self, prepared: Any) -> tuple[int, int]:  # noqa: D102
        height, width = prepared["inputs"].shape[1:]
        return int(height), int(width)

    @torch.inference_mode()
    def engine(self, prepared: Sequence[Any]) -> Any:  # noqa: D102
        keys = ("inputs", "data_samples")
        samples = self._model.test_step({key: [one[key] for one in prepared] for key in keys})
        return [sample.pred_instances.to("cpu") for sample in samples]  # to host memory: waits for the device

    def finish(self, outputs: Any, prepared: Sequence[Any]) -> int:  # noqa: ARG002, D102
        return sum(len(instances) for instances in outputs)  # test_step has mapped the boxes back


class CompiledRunner(PyTorchRunner):
    """The same with backbone, neck and head compiled; decode and NMS stay eager. It compiles at its first images.

    On a GPU in the mode that replays CUDA graphs, which is torch's fastest for single images.

    Args:
        model: is left as it is: a copy is compiled.
        config: its config.
        settings: of the report.
        backend: of torch.compile.
    """

    name = "PyTorch torch.compile"

    def __init__(
        self, model: Any, config: Config, *, settings: Mapping[str, str | int | float], backend: str = "inductor"
    ) -> None:
        on_gpu = next(model.parameters()).is_cuda
        mode = "reduce-overhead" if on_gpu else None
        model = deepcopy(model)
        model.extract_feat = torch.compile(model.extract_feat, backend=backend, mode=mode)
        model.bbox_head.forward = torch.compile(model.bbox_head.forward, backend=backend, mode=mode)
        super().__init__(model, config, settings={**settings, "torch_compile": f"{backend}, {mode or 'default'}"})

    def engine(self, prepared: Sequence[Any]) -> Any:
        """As PyTorch's.

        Raises:
            BackendMissingError: torch.compile does not work here.
        """
        try:
            return super().engine(prepared)
        except TorchDynamoException as error:
            reason = " ".join(str(error).split())[:200]
            message = f"torch.compile does not work here ({type(error).__name__}: {reason})"
            way_out = "it needs a C++ compiler, and on a GPU triton; or leave --compile out"
            raise BackendMissingError(f"{message}: {way_out}") from error


class InferenceDetectorRunner:
    """`mmdet.apis.inference_detector`, as its users call it."""

    name = "mmdet inference_detector"

    def __init__(self, model: Any, config: Config, *, settings: Mapping[str, str | int | float]) -> None:
        self.settings = settings
        self._model = model
        self._pipeline = Compose(without_annotations(config))

    def detect(self, path: Path) -> int:  # noqa: D102 - the protocol says it
        return len(inference_detector(self._model, str(path), test_pipeline=self._pipeline).pred_instances.to("cpu"))


def without_annotations(config: Config) -> list[dict[str, Any]]:
    """The test pipeline for images that have no ground truth."""
    steps = [dict(step) for step in config.test_dataloader.dataset.pipeline if step["type"] != "LoadAnnotations"]
    steps[-1]["meta_keys"] = [key for key in steps[-1].get("meta_keys", ()) if key != "instances"] or (
        "img_id", "img_path", "ori_shape", "img_shape", "scale_factor",
    )  # fmt: skip
    return steps
