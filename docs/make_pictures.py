"""The pictures of the README and the site: from a finished demo by `make pictures`, of ships by `make ssdd`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ld_deploy.demo.pictures import ROLE_COLOURS, STYLE, draw_spans
from ld_runtime.detections import Detections
from ld_runtime.detector import Detector
from ld_runtime.draw import draw
from ld_runtime.media import list_images
from ld_runtime.preprocess import decode

CELL_HW = (300, 400)
TITLES = {
    "teacher": "teacher",
    "student": "student alone",
    "ld_student": "distilled student",
    "ld_student.int8": "the same, INT8",
}
COLOURS = {**ROLE_COLOURS, "ld_student.int8": "#b35900"}
MOST_BYTES = 200_000


def make_pictures(demo: Path, *, report_page: Path | None, folder: Path) -> None:
    """Writes detections.jpg, regions.jpg, edges.jpg, spans.png, ap_ms.png, and report.jpg where a page is given.

    Args:
        demo: a finished demo's folder.
        report_page: of `ld-deploy report`.
        folder: where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_jpg(grid_of_detections(demo), folder / "detections.jpg")
    for kind in ("regions", "edges"):
        pictures = (demo / "ld_student" / "pictures").glob(f"*_{kind}.png")
        last = max(pictures, key=lambda path: (int(path.name.split("_")[1]), path.name))
        picture = decode(last)
        write_jpg(narrowed(first_row(picture) if kind == "edges" else picture, width=1000), folder / f"{kind}.jpg")
    report = json.loads((demo / "report.json").read_text(encoding="utf-8"))
    draw_spans(report["stages"]["bench"]["measurements"], path=folder / "spans.png")
    draw_ap_against_ms(report, path=folder / "ap_ms.png")
    if report_page is not None:
        write_jpg(screenshot(report_page), folder / "report.jpg")


def check_sizes(folder: Path) -> None:
    """Ends with an error if a picture is too large for a README."""
    for picture in sorted(folder.iterdir()):
        size = picture.stat().st_size
        print(f"{picture} {size // 1000} kB")
        if size > MOST_BYTES:
            sys.exit(f"{picture} is larger than {MOST_BYTES // 1000} kB")


def grid_of_ships(model: Path, images: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Of six images that ships fill most, the part around them."""
    detector = Detector(model, score_threshold=0.3)
    height, width = CELL_HW
    found = {path: detector(decode(path)) for path in list_images(images)}
    several = (path for path in found if len(found[path]) >= 2)
    cells: list[Any] = []
    for path in sorted(several, key=lambda path: -found[path].boxes[:, 2:4].prod(axis=1).sum()):
        image = decode(path)
        factor = width / image.shape[1]
        large = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        boxes = found[path].boxes * np.array([factor] * 4 + [1], np.float32)
        top = int(np.clip(boxes[:, 1].mean() - height / 2, 0, len(large) - height))
        boxes[:, 1] -= top
        moved = Detections(boxes, found[path].scores, found[path].labels)
        corners = moved.polygons.reshape(-1, 2)
        if len(cells) == 6 or len(large) < height or corners.min() < 0 or (corners > [width, height]).any():
            continue
        part = np.ascontiguousarray(large[top : top + height], np.uint8)
        cells.append(draw(part, moved, class_names=detector.class_names))
    return np.vstack([np.hstack(cells[:3]), np.hstack(cells[3:])])


def grid_of_detections(demo: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Six test images of landscape form with their detections, two rows."""
    detector = Detector(demo / "ld_student.onnx", score_threshold=0.35)
    height, width = CELL_HW
    cells: list[Any] = []
    for path in sorted((demo / "data" / "test").glob("*.png")):
        image = decode(path)
        found = detector(image)
        if len(cells) < 6 and image.shape[1] > 1.1 * image.shape[0] and 2 <= len(found) <= 5:
            # Enlarged before drawing, so that lines and text are thin beside the objects.
            factors = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
            large = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
            scaled = Detections(found.boxes * factors, found.scores, found.labels)
            cells.append(draw(np.ascontiguousarray(large, np.uint8), scaled, class_names=detector.class_names))
    return np.vstack([np.hstack(cells[:3]), np.hstack(cells[3:])])


def draw_ap_against_ms(report: Any, *, path: Path) -> None:
    """One point a model: AP on test against the engine's median."""
    spans = {one["name"]: one["spans"] for one in report["stages"]["bench"]["measurements"]}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.2))
        axes = figure.subplots()
        highest = max(row["ap"] for row in report["rows"])
        slowest = max(spans[row["role"]]["end_to_end"]["median_ms"] for row in report["rows"])
        for row in report["rows"]:
            role = row["role"]
            milliseconds = spans[role]["end_to_end"]["median_ms"]
            axes.scatter(milliseconds, row["ap"], s=90, color=COLOURS[role], zorder=3)
            shift = (8, -14) if role.endswith(".int8") else (8, 5)  # it lies beside the float file
            axes.annotate(TITLES[role], (milliseconds, row["ap"]), shift, textcoords="offset points")
        axes.set(
            xlabel="ms from image file to boxes (median)",
            ylabel="AP on test",
            ylim=(0, 1.15 * highest),
            xlim=(0, 1.35 * slowest),
        )
        axes.grid(alpha=0.25)
        figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")


def screenshot(page: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The first screen of a page, in Chromium."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.browser import running_browser

    with running_browser() as browser, browser.open(page, width=1100, height=1000) as opened:
        encoded = opened.page.screenshot()
    return np.asarray(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)


def first_row(picture: Any) -> Any:
    """Of the picture of edge distributions, one object with two of its sides and the legend: legible in a column."""
    height, width = picture.shape[:2]
    row = picture[int(0.05 * height) : int(0.345 * height), : int(0.572 * width)]
    legend = picture[int(0.955 * height) :, int(0.35 * width) : int(0.65 * width)]
    below = np.full((len(legend), row.shape[1], 3), 255, np.uint8)
    start = (row.shape[1] - legend.shape[1]) // 2
    below[:, start : start + legend.shape[1]] = legend
    return np.vstack([row, below])


def narrowed(image: Any, *, width: int) -> Any:
    """At most so wide."""
    factor = min(1, width / image.shape[1])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def write_jpg(image: Any, path: Path) -> None:
    """As JPEG."""
    cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 82])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("demo", type=Path, nargs="?", help="folder of a finished demo")
    parser.add_argument("--ships", type=Path, nargs=2, metavar=("MODEL", "IMAGES"), help="for ships.jpg")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "pictures")
    parser.add_argument("--report", type=Path, help="a page of `ld-deploy report`, for report.jpg")
    arguments = parser.parse_args()
    if arguments.demo is not None:
        make_pictures(arguments.demo, report_page=arguments.report, folder=arguments.folder)
    if arguments.ships is not None:
        write_jpg(grid_of_ships(*arguments.ships), arguments.folder / "ships.jpg")
    check_sizes(arguments.folder)
