from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ld_runtime.detection_record import DetectionRecord, record_path
from ld_runtime.detections import Detections
from ld_runtime.errors import DataError


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = Detections(
        np.array([[1.5, 2.25, 30.125, 40.0], [0, 0, 5, 5]], np.float32),
        np.array([0.75, 0.5], np.float32),
        np.array([1, 0], np.int64),
    )
    record = DetectionRecord(
        reference="PyTorch",
        paths=[Path("/images/a.png"), Path("/images/b.png")],
        document={"images": [{"id": 7}, {"id": 9}], "annotations": [], "categories": [{"id": 3, "name": "cell"}]},
        category_ids=[3, 5],
        detections={"PyTorch": [found, Detections.empty()], "a.onnx": [Detections.empty(), found]},
    )
    record.write(tmp_path / "parity.detections.json.gz")

    read = DetectionRecord.read(tmp_path / "parity.detections.json.gz")
    assert (read.reference, read.paths, read.document, read.category_ids) == (
        "PyTorch",
        record.paths,
        record.document,
        [3, 5],
    )
    assert [len(one) for one in read.detections["PyTorch"]] == [2, 0]
    again = read.detections["a.onnx"][1]
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(again.scores, found.scores)
    np.testing.assert_array_equal(again.labels, found.labels)


def test_scores_stay_descending_when_rounded(tmp_path: Path) -> None:
    scores = np.sort(np.random.default_rng(0).random(200).astype(np.float32))[::-1].copy()
    found = Detections(np.tile(np.array([0, 0, 1, 1], np.float32), (200, 1)), scores, np.zeros(200, np.int64))
    record = DetectionRecord("a", [Path("/a")], {}, [1], {"a": [found]})
    record.write(tmp_path / "r.gz")
    np.testing.assert_allclose(DetectionRecord.read(tmp_path / "r.gz").detections["a"][0].scores, scores, atol=1e-6)


def test_the_name_beside_a_report() -> None:
    assert record_path(Path("runs/parity.json")) == Path("runs/parity.detections.json.gz")


@pytest.mark.parametrize("content", [None, b"", b"not gzip", "truncated"])
def test_a_file_that_is_none_is_refused(content: bytes | str | None, tmp_path: Path) -> None:
    path = tmp_path / "r.gz"
    if content == "truncated":
        DetectionRecord("a", [Path("/a")], {}, [1], {"a": [Detections.empty()]}).write(path)
        path.write_bytes(path.read_bytes()[:-20])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match="ld-deploy verify"):
        DetectionRecord.read(path)
