"""Decoding: good images are decoded correctly, bad images are rejected with a reason."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from datamodules.images.decoding import BadImageError, check_image, decode_image
from tests.images import BAD_IMAGES, encoded, picture

MAX = 50_000_000
CONTENT = {name: case for name, case in BAD_IMAGES.items() if name != "notes.txt"}


@pytest.mark.parametrize("name", CONTENT)
def test_bad_image_is_rejected_with_its_reason(name: str, tmp_path: Path) -> None:
    content, reason = CONTENT[name]
    with pytest.raises(BadImageError, match=reason):
        decode_image(content, MAX)
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadImageError, match=reason):
        check_image(path, MAX)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG"])
def test_plain_image_is_decoded_unchanged(kind: str, tmp_path: Path) -> None:
    image = picture("blue", 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encoded(image, kind, **options)
    (tmp_path / "image").write_bytes(content)
    check_image(tmp_path / "image", MAX)
    decoded = decode_image(content, MAX).pixels
    assert decoded.shape == (16, 20, 3)
    assert decoded.dtype == np.uint8
    if kind not in ("JPEG", "GIF"):
        assert np.array_equal(decoded, np.asarray(image))
    assert np.array_equal(decode_image(tmp_path / "image", MAX).pixels, decoded)


def test_modes_that_convert_without_loss_are_read() -> None:
    image = picture("green", 1)
    opaque = image.convert("RGBA")
    assert np.array_equal(decode_image(encoded(opaque), MAX).pixels, np.asarray(image))
    grey = decode_image(encoded(image.convert("L")), MAX).pixels
    assert np.array_equal(grey[..., 0], np.asarray(image.convert("L")))
    assert np.array_equal(grey[..., 0], grey[..., 2])
    palette = image.quantize(16)
    assert np.array_equal(
        decode_image(encoded(palette), MAX).pixels, np.asarray(palette.convert("RGB"))
    )


def test_exif_orientation_is_applied() -> None:
    image = picture("red", 2)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise
    assert decode_image(encoded(image, "PNG", exif=exif), MAX).pixels.shape == (20, 16, 3)
    assert np.array_equal(
        decode_image(encoded(image, "PNG", exif=exif), MAX).pixels,
        np.asarray(image.transpose(Image.Transpose.ROTATE_270)),
    )


def test_centre_crop_and_resize_equal_pillows() -> None:
    image = picture("red", 5, (90, 60))
    expected = ImageOps.fit(image, (30, 30), Image.Resampling.BICUBIC)
    assert np.array_equal(decode_image(encoded(image), MAX, (30, 30)).pixels, np.asarray(expected))
    assert decode_image(encoded(image), MAX, (20, 40)).pixels.shape == (20, 40, 3)


def test_first_picture_of_an_mpo_file_is_decoded(tmp_path: Path) -> None:
    photograph, preview = picture("red", 1, (64, 64)), picture("blue", 2, (64, 64))
    content = encoded(photograph, "MPO", save_all=True, append_images=[preview])
    assert Image.open(io.BytesIO(content)).format == "MPO"
    (tmp_path / "photo.jpg").write_bytes(content)
    check_image(tmp_path / "photo.jpg", MAX)
    assert (
        decode_image(content, MAX).pixels[..., 0].mean()
        > decode_image(content, MAX).pixels[..., 2].mean()
    )


def test_jpeg_with_bytes_after_its_end_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(encoded(picture("red", 1), "JPEG") + b"\0" * 100)
    check_image(path, MAX)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a pointer of Git LFS; run: git lfs pull"),
        (b"<!DOCTYPE html>\n<html>", "is a page of HTML; the download failed: download it again"),
    ],
)  # fmt: skip
def test_a_file_in_place_of_an_image_is_named(content: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        decode_image(content, MAX)
