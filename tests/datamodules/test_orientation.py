"""EXIF orientation: images and masks are turned alike, and compared with pixels turned by hand."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.image import ImageDataModule
from datamodules.images.decoding import check_image, decode_image
from datamodules.masks.decoding import BadMaskError, PairDecoding, decode_mask
from datamodules.reading.errors import DataError
from datamodules.segmentation import SegmentationDataModule
from tests.images import encoded, picture
from tests.masks import class_list, image_of, label_bytes, mask
from tests.turning import SHOWN, stored, tagged, tagged_late

MAX = 10**6
ALL = list(SHOWN)
TURNED = ALL[1:]
WIDE, SQUARE = (40, 32), (32, 32)  # width and height
Maker = Callable[[np.ndarray, int], bytes]
MAKERS: dict[str, Maker] = {
    **{kind: lambda a, o, kind=kind: tagged(a, o, kind) for kind in ("PNG", "TIFF", "WEBP")},
    "late PNG": tagged_late,
}  # type: ignore[misc]


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("maker", MAKERS)
def test_an_image_is_decoded_as_viewers_show_it(maker: str, orientation: int) -> None:
    shown = image_of(mask(3, WIDE))
    content = MAKERS[maker](stored(shown, orientation), orientation)
    decoded = decode_image(content, MAX)
    assert np.array_equal(decoded.pixels, shown)
    assert decoded.orientation == orientation
    header = check_image(content, MAX)
    assert (header.size, header.orientation) == (shown.shape[:2], orientation)


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("maker", ["PNG", "TIFF", "late PNG"])
def test_a_mask_is_decoded_as_viewers_show_it(maker: str, orientation: int) -> None:
    shown = mask(3, WIDE)
    content = MAKERS[maker](stored(shown, orientation), orientation)
    values, found = decode_mask(content, MAX)
    assert np.array_equal(values, shown)
    assert found == orientation


@pytest.mark.parametrize("orientation", ALL)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_pair_with_the_same_tag_is_turned_alike(kind: str, orientation: int) -> None:
    shown = mask(3, WIDE)
    image = tagged(stored(image_of(shown), orientation), orientation, kind)
    annotation = tagged(stored(shown, orientation), orientation)
    pixels, values = PairDecoding(MAX).decode(image, annotation)
    assert np.array_equal(pixels, image_of(shown))
    assert np.array_equal(values, shown)
    assert np.array_equal(PairDecoding(MAX).check(image, annotation)[0], shown)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("drawn", ["shown", "stored"])
def test_a_mask_without_a_tag_is_placed_by_its_size_or_refused(
    drawn: str, orientation: int
) -> None:
    shown = mask(3, WIDE)
    image = tagged(stored(image_of(shown), orientation), orientation)
    annotation = label_bytes(shown if drawn == "shown" else stored(shown, orientation))
    if orientation in (5, 6, 7, 8):  # only one of the two readings fits
        assert np.array_equal(PairDecoding(MAX).decode(image, annotation)[1], shown)
    else:
        reason = rf"no EXIF orientation, and its image has the EXIF orientation {orientation}, so"
        for read in (PairDecoding(MAX).decode, PairDecoding(MAX).check):
            with pytest.raises(BadMaskError, match=reason):
                read(image, annotation)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("drawn", ["shown", "stored"])
def test_mask_orientation_tells_how_masks_were_drawn(drawn: str, orientation: int) -> None:
    shown = mask(3, SQUARE)
    image = tagged(stored(image_of(shown), orientation), orientation)
    annotation = label_bytes(shown if drawn == "shown" else stored(shown, orientation))
    decoding = PairDecoding(MAX, mask_orientation=drawn)  # type: ignore[arg-type]
    assert np.array_equal(decoding.decode(image, annotation)[1], shown)
    with pytest.raises(BadMaskError, match=r"set data\.mask_orientation to shown .* or stored"):
        PairDecoding(MAX).decode(image, annotation)


def test_a_tag_on_the_mask_only_is_refused_too() -> None:
    shown = mask(3, SQUARE)
    reason = "has the EXIF orientation 3, and its image has no EXIF orientation"
    with pytest.raises(BadMaskError, match=reason):
        PairDecoding(MAX).decode(encoded(Image.fromarray(image_of(shown))), tagged(shown, 3))


def test_the_tags_of_a_pair_of_different_sizes_are_named() -> None:
    image = tagged(image_of(mask(3, (40, 32))), 6)
    reason = (
        r"is 30 x 20 pixels, and its image is 32 x 40 \(has no EXIF orientation, "
        r"and the image has the EXIF orientation 6\)"
    )
    with pytest.raises(BadMaskError, match=reason):
        PairDecoding(MAX).decode(image, label_bytes(mask(3, (30, 20))))


@pytest.mark.parametrize("in_memory", [True, False])
def test_classification_reads_all_orientations_alike(in_memory: bool, tmp_path: Path) -> None:
    shown = np.asarray(picture("red", 1, (32, 32)))
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for o in ALL:
                content = tagged(stored(shown, o), o)
                (tmp_path / split / name / f"{o}.png").write_bytes(content)
    data = ImageDataModule(
        folder="", files={"train": "train", "val": None, "test": "test"}, classes=["a", "b"],
        num_classes=2, data_dir=str(tmp_path), size=32, in_memory=in_memory, val_fraction=0.25,
    )  # fmt: skip
    data.setup()
    for split in data.splits.values():
        for position in range(len(split)):
            assert np.array_equal(split.pixels(position).permute(1, 2, 0).numpy(), shown)


def scenes(root: Path, orientation: int, *, tag: bool) -> np.ndarray:
    """Write splits of two pairs of images with an orientation; return the mask as shown."""
    shown = mask(3, SQUARE)
    for split in ("train", "val", "test"):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for name in ("0", "1"):
            pixels = stored(shown, orientation)
            image = tagged(stored(image_of(shown), orientation), orientation)
            content = tagged(pixels, orientation) if tag else label_bytes(pixels)
            (root / "images" / split / f"{name}.png").write_bytes(image)
            (root / "annotations" / split / f"{name}.png").write_bytes(content)
    class_list(root / "list.yaml")
    return shown


@pytest.mark.parametrize("orientation", TURNED)
def test_segmentation_trains_on_pairs_that_fit(orientation: int, tmp_path: Path) -> None:
    def module(**settings: object) -> SegmentationDataModule:
        return SegmentationDataModule(
            folder="", files={"train": "train", "val": "val", "test": "test"}, num_classes=11,
            class_list=str(tmp_path / "list.yaml"), data_dir=str(tmp_path), size=32, **settings,  # type: ignore[arg-type]
        )  # fmt: skip

    shown = scenes(tmp_path, orientation, tag=False)
    with pytest.raises(DataError, match=rf"annotations/train/0\.png: .* orientation {orientation}"):
        module().setup()
    data = module(mask_orientation="stored")
    data.setup()
    for batch in (next(iter(data.train_dataloader())), next(iter(data.test_dataloader()))):
        pixels = batch["pixel_values"].permute(0, 2, 3, 1).numpy()
        assert all(np.array_equal(image, image_of(shown)) for image in pixels)
        assert all(np.array_equal(labels, shown) for labels in batch["labels"].numpy())
