"""`Detector` on a model file whose answer is known: the bright rectangles of the image."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ld_runtime import Detector
from ld_runtime.errors import ConfigError, EngineError, InputError
from ld_runtime.model_card import NmsSettings, Preprocess


def same(first, second) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("boxes", "scores", "labels"))


def test_boxes_come_back_in_pixels_of_the_original(model_file, rectangles) -> None:
    detector = Detector(model_file())
    assert detector.class_names == ("blue", "green", "red")
    assert detector.card.preprocess.scale == (160, 96)
    # 192 x 320 is halved to the canvas: the rectangles lie on even pixels, so they stay sharp.
    detections = detector(rectangles((192, 320), blue=(20, 40, 100, 120), red=(200, 10, 280, 180)))
    np.testing.assert_array_equal(detections.labels, [0, 2])
    np.testing.assert_allclose(detections.boxes, [[20, 40, 100, 120], [200, 10, 280, 180]])
    np.testing.assert_array_equal(detections.scores, np.array([255 / 256] * 2, np.float32))


def test_width_and_height_have_scales_of_their_own(model_file, rectangles) -> None:
    stretch = Preprocess(
        resize="stretch", scale=None, input_hw=(64, 128), size_divisor=32, pad_value=(0, 0, 0),
        mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    detector = Detector(model_file(preprocess=stretch))
    # x by 128 / 32 = 4, y by 64 / 32 = 2. Bilinear blurs the edge: 200 of 255 is passed within half a source pixel.
    detections = detector(rectangles((32, 32), green=(8, 8, 24, 24)))
    np.testing.assert_allclose(detections.boxes, [[8, 8, 24, 24]], atol=0.5)


def test_an_image_without_anything(model_file, rectangles) -> None:
    detections = Detector(model_file())(rectangles((96, 160)))
    assert len(detections) == 0
    assert detections.boxes.shape == (0, 4)


def test_a_path_is_an_image(model_file, rectangles, tmp_path: Path) -> None:
    image = rectangles((96, 160), blue=(10, 20, 50, 60))
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), image)
    detector = Detector(model_file())
    assert same(detector(path), detector(image))
    assert same(detector(str(path)), detector(image))
    with pytest.raises(InputError, match="there is no image file"):
        detector(tmp_path / "gone.png")
    with pytest.raises(InputError, match="COLOR_GRAY2BGR"):
        detector(image[:, :, 0])


def test_what_lies_in_the_padding_is_left_out_and_what_reaches_into_it_is_clipped(model_file, rectangles) -> None:
    # The padding is bright in blue here: at the right of a 96 x 150 image, from x = 150 to 160.
    bright = Preprocess(
        resize="keep_ratio", scale=(160, 96), input_hw=None, size_divisor=32, pad_value=(250, 0, 0),
        mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    detector = Detector(model_file(preprocess=bright))
    assert detector.prepare(rectangles((96, 150))).canvas.shape == (96, 160, 3)
    only_red = detector(rectangles((96, 150), red=(0, 0, 10, 10)))
    np.testing.assert_array_equal(only_red.labels, [2])
    reaching = detector(rectangles((96, 150), blue=(100, 30, 120, 50)))
    # With the padding's columns the blue box is (100, 0, 160, 96) on the canvas.
    np.testing.assert_array_equal(reaching.boxes, [[100, 0, 150, 96]])


def test_predict_gives_the_results_of_single_calls_in_order(model_file, rectangles) -> None:
    detector = Detector(model_file())
    shapes = [(96, 160), (160, 96), (96, 160), (50, 70), (96, 160), (160, 96), (96, 160), (97, 161), (96, 160)]
    images = [rectangles(hw, red=(i, i, 20 + i, 30 + i)) for i, hw in enumerate(shapes)]
    expected = [detector(image) for image in images]
    for batch_size in (1, 2, 3, 100):
        found = list(detector.predict(images, batch_size=batch_size))
        assert len(found) == len(images)
        assert all(map(same, found, expected))
    assert not same(expected[0], expected[1])
    assert list(detector.predict([])) == []
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, got 0"):
        detector.predict(images, batch_size=0)


def test_predict_batches_only_one_canvas_size(model_file, rectangles, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(model_file())
    shapes = []
    run = detector.engine.run
    monkeypatch.setattr(detector.engine, "run", lambda images: shapes.append(images.shape) or run(images))
    images = [rectangles(hw) for hw in [(96, 160), (160, 96)] * 3]
    list(detector.predict(images, batch_size=2))
    assert shapes == [(2, 96, 160, 3), (1, 96, 160, 3), (2, 160, 96, 3), (1, 160, 96, 3)]


def test_predict_is_lazy(model_file, rectangles) -> None:
    taken = []

    def endless():
        while True:
            taken.append(len(taken))
            yield rectangles((96, 160))

    next(Detector(model_file()).predict(endless(), batch_size=2))
    assert len(taken) == 8  # four batches are looked at for canvases of one size


def test_an_unreadable_image_keeps_the_results_before_its_group(model_file, rectangles) -> None:
    images = [rectangles((96, 160))] * 4 + [np.zeros((4, 4), np.uint8)]
    results = Detector(model_file()).predict(images)
    assert len([next(results) for _ in range(4)]) == 4
    with pytest.raises(InputError, match="COLOR_GRAY2BGR"):
        next(results)


def test_a_higher_score_threshold_filters(model_file, rectangles) -> None:
    path = model_file()
    image = rectangles((96, 160), blue=(0, 0, 10, 10), red=(20, 20, 40, 40))
    image[:, :, 0] //= 255
    image[:, :, 0] *= 224  # blue: 224 / 256 = 0.875; red: 255 / 256
    assert Detector(path)(image).labels.tolist() == [2, 0]
    assert Detector(path, score_threshold=0.874)(image).labels.tolist() == [2, 0]
    assert Detector(path, score_threshold=0.875)(image).labels.tolist() == [2]  # strict
    assert Detector(path, score_threshold=1)(image).labels.tolist() == []
    assert Detector(path, score_threshold=0.05)(image).labels.tolist() == [2, 0]  # the file's own
    assert Detector(path, max_detections=1)(image).labels.tolist() == [2]
    assert Detector(path, max_detections=0)(image).labels.tolist() == []


def test_what_needs_another_export_is_refused_with_the_command(model_file) -> None:
    path = model_file(nms=NmsSettings(score_threshold=0.05, max_detections=3))
    with pytest.raises(
        ConfigError, match=r"`ld-deploy export CONFIG CHECKPOINT --score-threshold 0.01 -o model\.onnx`"
    ):
        Detector(path, score_threshold=0.01)
    with pytest.raises(ConfigError, match=r"`ld-deploy export CONFIG CHECKPOINT --max-detections 4 -o model\.onnx`"):
        Detector(path, max_detections=4)
    for wrong in ({"score_threshold": float("nan")}, {"score_threshold": 1.5}, {"max_detections": -1}):
        with pytest.raises(ConfigError):
            Detector(path, **wrong)


def test_a_file_without_nms_is_refused_with_the_command(model_file) -> None:
    with pytest.raises(
        EngineError, match=r"exported with --nms none.*`ld-deploy export CONFIG CHECKPOINT -o model.onn"
    ):
        Detector(model_file(nms_kind="none"))
