"""A network that is not trained yet, as a file to be timed and beside PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ld_deploy.bench_reference import reference_model, reference_runners
from ld_deploy.ceiling import measure_ceiling
from ld_export.commands.export import export
from ld_runtime import Detector
from ld_runtime.errors import CheckpointError, ConfigError


def test_a_file_without_a_checkpoint(config_file: Path, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "random.onnx"
    export(str(config_file), None, output=output, random_weights=True)
    detector = Detector(output)
    assert detector.card.weights_sha256 == ""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (100, 140, 3), dtype=np.uint8)
    export(str(config_file), None, output=tmp_path / "again.onnx", random_weights=True)
    first, again = detector(image), Detector(tmp_path / "again.onnx")(image)
    assert len(first) > 0
    np.testing.assert_array_equal(first.boxes, again.boxes)  # random, and the same in every call
    for given, flag, words in ((None, False, "neither was given"), (checkpoint, True, "both were given")):
        with pytest.raises(ConfigError, match=words):
            export(str(config_file), given, output=output, random_weights=flag)


def test_pytorch_beside_it(config_file: Path, checkpoint: Path, data_root: Path) -> None:
    model, config = reference_model(config_file, device="cpu")
    assert not model.training
    assert config.model.bbox_head.num_classes == 3
    staged, whole = reference_runners(config_file, "cpu")
    assert "checkpoint_sha256" not in staged.settings  # it has no weights that another run could have
    image = data_root / "0.png"
    prepared = staged.preprocess(staged.decode(image))  # type: ignore[union-attr]
    assert staged.canvas_hw(prepared) == (160, 224)  # type: ignore[union-attr]
    assert whole.detect(image) > 0  # type: ignore[union-attr]
    with pytest.raises(CheckpointError, match="does not hold its config"):
        reference_runners(checkpoint, "cpu")


def test_the_ceiling_of_a_config(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ld_deploy import ceiling

    monkeypatch.setattr(ceiling, "SIDE", 64)
    small = measure_ceiling(config_file, canvas_hw=(160, 224))
    assert set(small.operations_per_second) == {"fp32", "bf16", "int8"}
    assert min(small.operations_per_second.values()) > 0
    # Four times the pixels, four times the operations, but for the borders of the coarse levels.
    large = measure_ceiling(config_file, canvas_hw=(320, 448))
    assert large.operations / small.operations == pytest.approx(4, rel=0.05)
