"""`data.convert`: images that RGB cannot show are converted as browsers do, and counted."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.image import ImageDataModule
from datamodules.images.decoding import BadImageError, check_image, decode_image
from datamodules.reading.errors import DataError
from tests.images import BAD_IMAGES, deep_png, deep_tiff, encoded, picture

MAX = 10**6
RED = picture("red", 1)
PIXELS = np.asarray(RED)


def converted(content: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    with pytest.raises(BadImageError) as refused:
        decode_image(content, MAX)
    assert refused.value.convertible
    decoded = decode_image(content, MAX, convert=True)
    header = check_image(content, MAX, convert=True)
    assert header.conversions == decoded.conversions
    assert header.size == decoded.pixels.shape[:2]
    return decoded.pixels, decoded.conversions


def on_white(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(float) / 255
    return rgba[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_images_lie_on_white(kind: str) -> None:
    rgba = np.dstack([PIXELS, np.arange(320, dtype=np.uint8).reshape(16, 20)])
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels, conversions = converted(encoded(Image.fromarray(rgba), kind, **options))
    assert np.abs(pixels - on_white(rgba)).max() <= 1
    assert conversions == ("transparent onto white",)


def test_transparent_grey_and_palettes_lie_on_white() -> None:
    grey = np.dstack([PIXELS[..., 0], np.full((16, 20), 51, np.uint8)])
    pixels, _ = converted(encoded(Image.fromarray(grey, "LA")))
    assert np.abs(pixels[..., 1] - (grey[..., 0] * 0.2 + 255 * 0.8)).max() <= 1
    palette = RED.quantize(8)
    pixels, _ = converted(encoded(palette, "PNG", transparency=3))
    hole = np.asarray(palette) == 3
    assert (pixels[hole] == 255).all()
    assert (pixels[~hole] == np.asarray(palette.convert("RGB"))[~hole]).all()


@pytest.mark.parametrize("name", ["animated.gif", "animated.webp", "animated.png", "pages.tif"])
def test_the_first_frame_of_an_animation_is_taken(name: str) -> None:
    content = BAD_IMAGES[name][0]
    pixels, conversions = converted(content)
    assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert pixels[..., 0].mean() > pixels[..., 2].mean()  # red, then blue
    assert conversions == ("first of several frames",)


def test_cmyk_becomes_rgb() -> None:
    content = encoded(RED.convert("CMYK"), "TIFF")
    pixels, conversions = converted(content)
    assert np.abs(pixels.astype(int) - PIXELS).max() <= 1
    assert conversions == ("CMYK to RGB",)
    assert converted(encoded(RED.convert("CMYK"), "JPEG", quality=95))[0][..., 0].mean() > 150


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_deep_grey_is_scaled(kind: str) -> None:
    values = np.linspace(0, 65535, 320).astype(np.uint16).reshape(16, 20)
    pixels, conversions = converted(encoded(Image.fromarray(values), kind))
    assert np.abs(pixels[..., 0] - values / 257).max() <= 0.5
    assert pixels.min() == 0
    assert pixels.max() == 255
    assert conversions == ("16 bits a channel to 8",)


@pytest.mark.parametrize(("content", "value"), [(deep_png(), 0x1234), (deep_tiff(), 0x9C40)])
def test_deep_colours_are_scaled(content: bytes, value: int) -> None:
    pixels, _ = converted(content)
    assert np.abs(pixels - value / 257).max() <= 1


def test_values_of_unknown_range_stay_refused() -> None:
    for array in (np.ones((8, 8), np.float32), np.ones((8, 8), np.int32)):
        content = encoded(Image.fromarray(array), "TIFF")
        with pytest.raises(BadImageError, match="16 bits a channel or more") as refused:
            decode_image(content, MAX, convert=True)
        assert not refused.value.convertible


def test_damaged_images_are_not_converted() -> None:
    for name in ("empty.png", "text.png", "truncated.png", "dot.png", "huge.png"):
        content, reason = BAD_IMAGES[name]
        with pytest.raises(BadImageError, match=reason.replace("50000000", "1000000")):
            decode_image(content, MAX, convert=True)


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_dataset_counts_what_it_converts(
    in_memory: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("animated.gif", "transparent.png", "palette.png", "cmyk.jpg", "deep.png")
    for split in ("train", "val", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            (tmp_path / split / label / "plain.png").write_bytes(encoded(RED))
    for name in names:
        (tmp_path / "train" / "a" / name).write_bytes(BAD_IMAGES[name][0])

    def module(**settings: object) -> ImageDataModule:
        return ImageDataModule(
            folder="", files={"train": "train", "val": "val", "test": "test"}, classes=["a", "b"], num_classes=2,
            data_dir=str(tmp_path), size=8, in_memory=in_memory, check=True, **settings,  # type: ignore[arg-type]
        )  # fmt: skip

    with pytest.raises(DataError, match=r"animated\.gif: has several.*; data.convert=true conv"):
        module().setup()
    with caplog.at_level("INFO"):
        data = module(convert=True)
        data.setup()
    assert len(data.splits["train"]) == 7
    assert (
        "train: data.convert=true converted images: 2 transparent onto white, "
        "1 first of several frames, 1 CMYK to RGB, 1 16 bits a channel to 8" in caplog.text
    )
    assert all(data.splits["train"].pixels(i).shape == (3, 8, 8) for i in range(7))
