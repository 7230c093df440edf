"""The start-up benchmark, on a tiny file."""

import json
import statistics

import pytest

from ld_runtime.startup import main


def test_processes_take_turns_and_ratios_are_of_medians(model_file, tmp_path, capsys) -> None:
    model, output = str(model_file()), tmp_path / "startup.json"
    main([model, "--rounds", "2", "-o", str(output)])
    content = json.loads(output.read_text())
    assert {len(values) for values in content["times_ms"].values()} == {2}
    for one in content["ratios"]:
        of, to = (statistics.median(content["times_ms"][one[side]]) for side in ("of", "to"))
        assert one["ratio"] == pytest.approx(of / to)
    assert [one["of"] for one in content["ratios"]][-1] == f"Detector {model}"
    assert len(content["models"][model]) == 64
    assert "import ld_runtime / import numpy, cv2" in capsys.readouterr().out
