"""A folder of images detected, killed by SIGKILL at some moments and gone on with, beside a run that was left alone.

    .venv/bin/python -m tests.runtime.folder_run MODEL IMAGES -o docs/results/folder_10000.json

shows on 10,000 images that nothing is lost or done twice, and that memory does not grow.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import typer

from ld_runtime.bench_report import sha256_of
from ld_runtime.detection_journal import JOURNAL_FILE
from ld_runtime.media import list_images

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """How a run ended: exit status, seconds, peak of its memory, lines of the journal when it was killed."""

    status: int
    seconds: float
    peak_rss_mb: float
    lines: int


def make_folder(folder: Path, count: int, *, images: list[Path], width: int) -> Path:
    """`count` names for the images, made small, by hard links."""
    (folder / "of").mkdir(parents=True)
    for number, path in enumerate(images):
        image = cv2.imread(str(path))
        height = round(image.shape[0] * width / image.shape[1])
        cv2.imwrite(str(folder / "of" / f"{number}.jpg"), cv2.resize(image, (width, height)))
    for number in range(count):
        (folder / f"{number:06}.jpg").hardlink_to(folder / "of" / f"{number % len(images)}.jpg")
    return folder


def detect(model: Path, folder: Path, out: Path, *, kill_at: int | None = None, options: tuple[str, ...] = ()) -> Run:
    """Runs `ld-deploy detect`; kills it when the journal has `kill_at` images."""
    command = [sys.executable, "-m", "ld_runtime.cli", "detect", str(model), str(folder), "-o", str(out), *options]
    paths = os.pathsep.join(str(ROOT / part) for part in ("", "runtime", "export"))
    started, peak, lines = time.perf_counter(), 0.0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": paths}) as process:
        while process.poll() is None:
            peak = max(peak, _peak_rss_mb(process.pid))
            if kill_at is not None and (lines := _lines(out / JOURNAL_FILE)) >= kill_at:
                process.send_signal(signal.SIGKILL)
                process.wait()
            time.sleep(0.005)
    lines = _lines(out / JOURNAL_FILE)
    return Run(process.returncode, time.perf_counter() - started, peak, lines)


def _peak_rss_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _lines(journal: Path) -> int:
    try:
        return max(0, journal.read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def compared(first: Path, second: Path) -> dict[str, Any]:
    """What the second COCO file has lost, repeated or changed against the first."""
    one, other = (json.loads((path / "detections.json").read_text(encoding="utf-8")) for path in (first, second))
    names, others = ([image["file_name"] for image in document["images"]] for document in (one, other))
    pictures, more = ({path.name for path in (folder / "annotated").glob("*")} for folder in (first, second))
    return {
        "images": len(names),
        "detections": len(one["annotations"]),
        "lost": len(set(names) - set(others)),
        "repeated": len(others) - len(set(others)),
        "identical": one == other,
        "pictures": len(pictures),
        "pictures_identical": bool(pictures)
        and pictures == more
        and all(
            (first / "annotated" / name).read_bytes() == (second / "annotated" / name).read_bytes() for name in more
        ),
    }


def main(
    model: Path,
    images: str,
    *,
    output: Annotated[Path, typer.Option("-o", "--output")],
    folder: Annotated[Path, typer.Option(help="For images and detections; must not exist.")] = Path("outputs/folder"),
    count: int = 10_000,
    width: int = 160,
    pictures: Annotated[bool, typer.Option(help="Annotated images too: drawing takes most of the time.")] = False,
) -> None:
    """Detects in `count` images: once left alone, once killed at three moments; and in a tenth of them."""
    options = ("--batch-size", "4") if pictures else ("--batch-size", "4", "--no-images")
    small = make_folder(folder / "small", count // 10, images=list_images(images), width=width)
    large = make_folder(folder / "large", count, images=list_images(images), width=width)
    tenth = detect(model, small, folder / "out_small", options=options)
    alone = detect(model, large, folder / "out_alone", options=options)
    killed = [
        detect(model, large, folder / "out_killed", kill_at=round(count * part), options=options)
        for part in (0.1, 0.45, 0.8)
    ]
    last = detect(model, large, folder / "out_killed", options=options)
    result = {
        "kind": "ld_deploy.folder_run",
        **compared(folder / "out_alone", folder / "out_killed"),
        "kills": len([run for run in killed if run.status == -signal.SIGKILL]),
        "resumed_at": [run.lines for run in killed],
        "last_status": last.status,
        "images_per_second": round(count / alone.seconds, 1),
        "peak_rss_mb": {str(count // 10): round(tenth.peak_rss_mb, 1), str(count): round(alone.peak_rss_mb, 1)},
        "peak_rss_ratio": round(alone.peak_rss_mb / tenth.peak_rss_mb, 3),
        "settings": {"model": model.name, "model_sha256": sha256_of(model), "width": width, "options": options},
        "machine": {"cores": os.cpu_count(), "opencv": cv2.__version__},
    }
    output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
