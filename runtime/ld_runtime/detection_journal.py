"""What a run has found so far, as lines on disk: nothing grows in memory, and a killed run goes on where it stopped.

A JSON-lines file. The first line is the header: what was run, and how. Each further line is one image or frame.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ld_runtime.detections import Detections
from ld_runtime.errors import ConfigError, DataError, LdDeployError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

JOURNAL_FILE = "detections.journal.jsonl"
KIND = "ld_deploy.detection_journal"
START = f'{{"kind": "{KIND}"'.encode()

Setting = str | int | float | bool | None


@dataclass(frozen=True)
class JournalHeader:
    """What a journal's lines were made of. A run goes on with a journal only when its own header is equal.

    Args:
        model_sha256: of the model file.
        source: images or video, as the caller named them.
        settings: everything else that results depend on, by the names that the user knows.
    """

    model_sha256: str
    source: str
    settings: Mapping[str, Setting] = field(default_factory=dict)

    def differences(self, other: JournalHeader) -> list[str]:
        """What `other` has differently, in words: `score_threshold was 0.3, is 0.5`."""
        was, now = self._flat(), other._flat()
        names = sorted(was.keys() | now.keys())
        return [f"{name} was {was.get(name)}, is {now.get(name)}" for name in names if was.get(name) != now.get(name)]

    def _flat(self) -> dict[str, Setting]:
        return {"model_sha256": self.model_sha256, "source": self.source, **self.settings}


@dataclass(frozen=True, eq=False)
class JournalEntry:
    """One image or frame that is done with: it has detections, or it was refused.

    Args:
        name: the image file, or `source#index` of a frame.
        image_hw: height and width in pixels; None where it was refused.
        detections: in pixels of the image; None where it was refused.
        refused: why.
        time_s: of a frame, in the video.
        track_ids: of each detection.
        picture: name of the annotated image that was written for it.
    """

    name: str
    image_hw: tuple[int, int] | None = None
    detections: Detections | None = None
    refused: str | None = None
    time_s: float | None = None
    track_ids: tuple[int, ...] | None = None
    picture: str | None = None

    def to_line(self) -> str:
        """One JSON object. A float32 is written with the digits that bring it back to the bit."""
        content: dict[str, Any] = {"name": self.name}
        if self.detections is not None:
            content["image_hw"] = self.image_hw
            for key in ("boxes", "scores", "labels"):
                content[key] = getattr(self.detections, key).tolist()
            if self.detections.is_rotated:
                content["box_format"] = "cxcywha"
        for key in ("refused", "time_s", "track_ids", "picture"):
            if (value := getattr(self, key)) is not None:
                content[key] = value
        return json.dumps(content, allow_nan=False)

    @classmethod
    def from_line(cls, line: bytes) -> JournalEntry | None:
        """Reads what `to_line` wrote; None where it is damaged."""
        try:
            content = json.loads(line)
            refused, tracks = content.get("refused"), content.get("track_ids")
            if refused is not None:
                return cls(content["name"], refused=refused)
            return cls(
                name=content["name"],
                image_hw=(int(content["image_hw"][0]), int(content["image_hw"][1])),
                detections=Detections.from_lists(content),
                time_s=content.get("time_s"),
                track_ids=None if tracks is None else tuple(tracks),
                picture=content.get("picture"),
            )
        except (ValueError, LookupError, TypeError, AttributeError, LdDeployError):
            return None


class DetectionJournal:
    """A journal on disk, open for further lines and locked against a second run. Use it inside `with`.

    A line is handed to the system before `append` returns, so that a killed process loses the line in flight at most.
    It is not forced onto the disk: after a power cut the last lines may be missing, and their images are done again.

    Args:
        path: the file. Its folder is made.
        header: of this run.
        restart: whether what a journal there holds is thrown away.

    Attributes:
        resumed: whether a journal of an unfinished run was there.

    Raises:
        ConfigError: The journal there is of another model, source or settings; the message says which.
        DataError: The file there is no journal, or is damaged other than at its end.
        LdDeployError: Another run has it open, or it cannot be written.
    """

    def __init__(self, path: Path, header: JournalHeader, *, restart: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
        except OSError as error:
            raise LdDeployError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            _lock(self._file, path)
            self.resumed = self._take_over(header, restart=restart)
        except BaseException:
            os.close(self._file)
            raise

    def _take_over(self, header: JournalHeader, *, restart: bool) -> bool:
        """Checks what is there and cuts a damaged end off; True when there is something to go on with."""
        found = None if restart else self._read_header()
        if found is None:
            self._truncate(0)
            self._write(json.dumps({"kind": KIND, **asdict(header)}))
            return False
        if differences := found.differences(header):
            listed = "; ".join(differences)
            message = f"{self.path.parent} holds an unfinished run that was another: {listed}"
            raise ConfigError(f"{message}. Throw it away with --restart, or choose another -o")
        self._truncate(max(end for end, _ in self._lines()))
        return True

    def _truncate(self, length: int) -> None:
        try:
            os.ftruncate(self._file, length)
        except OSError as error:
            raise LdDeployError(f"cannot write {self.path}: {error.strerror or error}") from error

    def _read_header(self) -> JournalHeader | None:
        """None where not even the first line is whole: nothing was done then."""
        with self.path.open("rb") as file:
            line = file.readline()
        if not line.endswith(b"\n") and line[: len(START)] == START[: len(line)]:
            return None
        try:
            content = json.loads(line)
            kind = content.pop("kind")
            header = JournalHeader(**content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(self._foreign(f"{error!r}")) from error
        if kind != KIND:
            raise DataError(self._foreign(f"but {kind!r}"))
        return header

    def _foreign(self, what: str) -> str:
        return f"{self.path} is no journal of detections ({what}): choose another -o, or throw it away with --restart"

    def _lines(self) -> Iterator[tuple[int, JournalEntry | None]]:
        """Where each whole line ends, and its entry; the header's is None. A damaged last line is left out."""
        with self.path.open("rb") as file:
            end = len(file.readline())
            yield end, None
            damaged = None
            for number, line in enumerate(file, start=2):
                if damaged is not None:
                    message = f"line {damaged} of {self.path} is damaged, and it is not the last"
                    raise DataError(f"{message}: throw the journal away with --restart")
                entry = JournalEntry.from_line(line) if line.endswith(b"\n") else None
                if entry is None:
                    damaged = number
                else:
                    end += len(line)
                    yield end, entry

    def entries(self) -> Iterator[JournalEntry]:
        """All entries so far, in the order in which they were appended, read from the disk one by one.

        Raises:
            DataError: A line other than the last is damaged.
        """
        return (entry for _, entry in self._lines() if entry is not None)

    def append(self, entry: JournalEntry) -> None:
        """Adds a line.

        Raises:
            LdDeployError: It cannot be written: the disk is full.
        """
        self._write(entry.to_line())

    def _write(self, line: str) -> None:
        data = line.encode() + b"\n"
        try:
            while data:
                data = data[os.write(self._file, data) :]
        except OSError as error:
            message = f"cannot write {self.path}: {error.strerror or error}"
            raise LdDeployError(f"{message}; what was done before is kept, and the same command goes on") from error

    def remove(self) -> None:
        """Deletes the file, when everything in it was written elsewhere. Call it before leaving the block."""
        with suppress(FileNotFoundError):
            self.path.unlink()

    def __enter__(self) -> DetectionJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def _lock(file: int, path: Path) -> None:
    """Locks an open file for this process; the system lets go of it when the process ends, however that happens."""
    message = f"another run is writing into {path.parent}: wait for it, or choose another -o"
    try:
        if sys.platform == "win32":
            import msvcrt

            os.lseek(file, 1 << 40, os.SEEK_SET)  # a byte that nobody reads: a lock there is for readers too
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise LdDeployError(message) from error
