"""The start-up benchmark, on a tiny file."""

import json
import statistics

import cv2
import numpy as np
import pytest

from ld_runtime.startup import main


def test_processes_take_turns_and_ratios_are_of_medians(model_file, tmp_path, capsys) -> None:
    model, output = str(model_file()), tmp_path / "startup.json"
    image = tmp_path / "image.png"
    cv2.imwrite(str(image), np.full((40, 60, 3), 90, np.uint8))
    main([model, "--image", str(image), "--rounds", "2", "-o", str(output)])
    content = json.loads(output.read_text())
    assert {len(values) for values in content["times_ms"].values()} == {2}
    for one in content["ratios"]:
        of, to = (statistics.median(content["times_ms"][one[side]]) for side in ("of", "to"))
        assert one["ratio"] == pytest.approx(of / to)
    assert [one["of"] for one in content["ratios"]][-1] == f"Detector and an image {model}"
    assert len(content["models"][model]) == 64
    assert "import ld_runtime / import numpy, cv2" in capsys.readouterr().out
