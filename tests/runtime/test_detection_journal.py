"""The journal of a run: what is appended comes back to the bit, and a killed run loses its last line at most."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ld_runtime.detection_journal import DetectionJournal, JournalEntry, JournalHeader
from ld_runtime.detections import Detections
from ld_runtime.errors import ConfigError, DataError, LdDeployError

HEADER = JournalHeader("ab", "images", {"score_threshold": 0.3, "tile": None})
THIRD = np.float32(1) / np.float32(3)


def entry(name: str, count: int = 2) -> JournalEntry:
    boxes = np.arange(4 * count, dtype=np.float32).reshape(count, 4) + THIRD
    scores = np.linspace(0.9, 0.4, count, dtype=np.float32)
    found = Detections(boxes, scores, np.arange(count, dtype=np.int64))
    return JournalEntry(name=name, image_hw=(3, 5), detections=found, picture=f"{name}.jpg")


def equal(first: JournalEntry, second: JournalEntry) -> bool:
    return first.to_line() == second.to_line()


def written(path: Path, *entries: JournalEntry, header: JournalHeader = HEADER, restart: bool = False) -> bool:
    with DetectionJournal(path, header, restart=restart) as journal:
        for one in entries:
            journal.append(one)
        return journal.resumed


def read(path: Path) -> list[JournalEntry]:
    with DetectionJournal(path, HEADER) as journal:
        return list(journal.entries())


def test_what_is_appended_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = tmp_path / "new" / "journal.jsonl"
    entries = [
        entry("a.jpg"),
        entry("naïve 图.jpg", 0),
        JournalEntry(name="cut.jpg", refused="cut.jpg is empty\n(0 bytes)"),
        JournalEntry("v#7", (1, 2), entry("", 1).detections, time_s=1001 / 30000, track_ids=(12,)),
    ]
    assert not written(path, *entries)
    back = read(path)
    assert all(map(equal, back, entries))
    assert len(back) == 4
    first = back[0].detections
    assert first is not None
    assert first.boxes[1, 3] == np.float32(7) + THIRD
    assert (first.boxes.dtype, first.scores.dtype, first.labels.dtype) == (np.float32, np.float32, np.int64)
    assert back[0].image_hw == (3, 5)
    assert back[1].detections is not None
    assert back[1].detections.boxes.shape == (0, 4)
    assert (back[2].detections, back[2].image_hw) == (None, None)
    assert (back[3].time_s, back[3].track_ids) == (1001 / 30000, (12,))


def test_entries_are_there_while_the_journal_is_open(tmp_path: Path) -> None:
    with DetectionJournal(tmp_path / "j", HEADER) as journal:
        assert list(journal.entries()) == []
        journal.append(entry("a"))
        assert [one.name for one in journal.entries()] == ["a"]
        journal.remove()
    assert list(tmp_path.iterdir()) == []


def test_at_every_byte_a_cut_loses_the_last_line_at_most(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, entry("a"), entry("b"))
    whole = path.read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert written(path, entry("c")) == (cut >= ends[0])
        names = [one.name for one in read(path)]
        assert names == [*["a", "b"][: max(0, sum(end <= cut for end in ends) - 1)], "c"]


def test_zeros_at_the_end_are_dropped_and_damage_elsewhere_is_told(tmp_path: Path) -> None:
    path = tmp_path / "j"
    written(path, entry("a"), entry("b"))
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(40) + b"\n")  # as file systems leave them after a power cut
    assert [one.name for one in read(path)] == ["a", "b"]
    lines = whole.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1][:-9] + b"\n" + lines[2])
    with pytest.raises(DataError, match=r"line 2 of .* is damaged, and it is not the last: .*--restart"):
        read(path)
    assert not written(path, entry("c"), restart=True)
    assert [one.name for one in read(path)] == ["c"]


def test_a_run_that_was_another_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "out" / "j"
    written(path, entry("a"))
    other = JournalHeader("cd", "images", {"score_threshold": 0.5, "tile": 640, "nms": "graph"})
    told = (
        r"out holds an unfinished run that was another: model_sha256 was ab, is cd; nms was None, is graph; "
        r"score_threshold was 0\.3, is 0\.5; tile was None, is 640\. Throw it away with --restart, or choose another -o"
    )
    with pytest.raises(ConfigError, match=told):
        DetectionJournal(path, other)
    with pytest.raises(ConfigError, match="source was images, is others"):
        DetectionJournal(path, JournalHeader("ab", "others", HEADER.settings))
    assert [one.name for one in read(path)] == ["a"]
    assert not written(path, header=other, restart=True)


@pytest.mark.parametrize("content", [b"notes\n", b'{"kind": "other"}\n', b"[1]\n", b"notes", b'{"kind": 3}'])
def test_a_foreign_file_is_not_touched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j").write_bytes(content)
    with pytest.raises(DataError, match="is no journal of detections"):
        DetectionJournal(tmp_path / "j", HEADER)
    assert (tmp_path / "j").read_bytes() == content


def test_a_second_run_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "j"
    program = (
        "import sys; from pathlib import Path\n"
        "from ld_runtime.detection_journal import DetectionJournal, JournalHeader\n"
        "journal = DetectionJournal(Path(sys.argv[1]), JournalHeader('ab', 'images', "
        "{'score_threshold': 0.3, 'tile': None}))\n"
        "print('open', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        for restart in (False, True):
            with pytest.raises(
                LdDeployError, match=r"another run is writing into .*: wait for it, or choose another -o"
            ):
                DetectionJournal(path, HEADER, restart=restart)
        other.kill()
    assert written(path, entry("a"))


def test_a_disk_that_is_full_leaves_whole_lines(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from tests.runtime.test_detection_journal import HEADER, entry\n"
        "from ld_runtime.detection_journal import DetectionJournal\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "with DetectionJournal(Path(sys.argv[1]), HEADER) as journal:\n"
        "    for number in range(100):\n        journal.append(entry(str(number)))\n"
    )
    path = tmp_path / "j"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (root, root / "runtime")))}
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False, env=environment
    )
    assert "cannot write" in done.stderr
    assert "what was done before is kept, and the same command goes on" in done.stderr
    names = [one.name for one in read(path)]
    assert names == [str(number) for number in range(len(names))]
    assert len(names) > 2


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LdDeployError, match="cannot write"):
        DetectionJournal(tmp_path / "file" / "j", HEADER)
