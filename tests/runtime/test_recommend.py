"""`ld-deploy recommend` on a tiny file."""

import json

import cv2
import pytest

from ld_runtime import cli


def test_recommend(capsys, model_file, rectangles, tmp_path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), rectangles((96, 160), blue=(10, 20, 50, 60)))
    names = ("blue", "green", "red")
    truth = {
        "images": [{"id": 7, "file_name": "a.png", "width": 160, "height": 96}],
        "categories": [{"id": 11 + index, "name": name} for index, name in enumerate(names)],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 11, "bbox": [10, 20, 40, 40], "area": 1600, "iscrowd": 0}
        ],
    }
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth), encoding="utf-8")
    given = ["recommend", str(model_file()), "--annotations", str(file), "--images", str(tmp_path), "--seconds", "0.1"]
    with pytest.raises(SystemExit) as stopped:
        cli.main([*given, "--json"])
    captured = capsys.readouterr()
    assert stopped.value.code == 0, captured.err
    (point,) = json.loads(captured.out)["points"]
    assert (point["ap"], point["on_front"], point["backend"]) == (pytest.approx(1.0), True, "onnxruntime")
    truth["categories"][0]["name"] = "blu"
    file.write_text(json.dumps(truth), encoding="utf-8")
    with pytest.raises(SystemExit) as stopped:
        cli.main(given)
    assert stopped.value.code == 2
    assert "has no category ['blue']" in " ".join(capsys.readouterr().err.split())
