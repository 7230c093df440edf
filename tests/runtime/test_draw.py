import subprocess
import sys

import numpy as np
import pytest

from ld_runtime.detections import Detections
from ld_runtime.draw import COLOURS, draw
from ld_runtime.errors import InputError


def bgr(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (5, 3, 1)]


def detections(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    array = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(array[:, :4].copy(), array[:, 4].copy(), array[:, 5].astype(np.int64))


def test_each_class_has_its_colour_and_the_image_is_not_changed() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    found = detections((20, 60, 120, 160, 0.9, 0), (160, 60, 280, 180, 0.8, 1))
    drawn = draw(image, found, class_names=("cell", "platelet"))
    assert not image.any()
    assert drawn.shape == image.shape
    assert drawn[120, 20].tolist() == bgr(COLOURS[0])  # left edges
    assert drawn[120, 160].tolist() == bgr(COLOURS[1])
    assert not drawn[120, 70].any()  # nothing inside a box
    assert (drawn == 255).all(axis=2).any()  # the text


def test_nothing_to_draw() -> None:
    image = np.full((50, 60, 3), 7, np.uint8)
    np.testing.assert_array_equal(draw(image, Detections.empty(), class_names=("a",)), image)


def test_more_classes_than_colours() -> None:
    names = [f"class {index}" for index in range(25)]
    drawn = draw(np.zeros((99, 99, 3), np.uint8), detections((10, 40, 90, 90, 0.5, 24)), class_names=names)
    assert drawn[65, 10].tolist() == bgr(COLOURS[24 % len(COLOURS)])


def test_a_wrong_image_is_refused() -> None:
    with pytest.raises(InputError, match="COLOR_GRAY2BGR"):
        draw(np.zeros((50, 60), np.uint8), Detections.empty(), class_names=())


def test_without_supervision() -> None:
    program = (
        "import sys; sys.modules['supervision'] = None\n"
        "import numpy\n"
        "from ld_runtime import Detections\n"
        "from ld_runtime.draw import draw\n"
        "from ld_runtime.errors import BackendMissingError\n"
        "try:\n    draw(numpy.zeros((9, 9, 3), 'uint8'), Detections.empty(), class_names=())\n"
        "except BackendMissingError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert "pip install 'ld-deploy[draw]'" in done.stdout
