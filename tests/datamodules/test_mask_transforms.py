"""Joint changes: image and mask stay together, each pair has its own draw, and the draw is a function of its row."""

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.masks.transforms import (
    SegmentationAugmentation,
    SegmentationAugmenter,
    largest_share,
    photometric,
    resized_image,
    stretched,
)
from tests.masks import COLOURS, image_of, mask

PLAIN = SegmentationAugmentation(scale=None, largest_share=1.0, flip=False, photometric=False)
RECIPE = SegmentationAugmentation(scale=[0.5, 2.0], largest_share=1.0, flip=True, photometric=False)


def nearest_class(image: np.ndarray) -> np.ndarray:
    distances = ((image[:, :, None].astype(float) - np.asarray(COLOURS, float)) ** 2).sum(-1)
    return distances.argmin(-1)


def test_the_whole_pair_is_stretched_as_pillow_does_it() -> None:
    labels = mask(1, (50, 30))
    image = image_of(labels)
    changed, map_ = stretched(image, labels, 24)
    assert (
        changed == np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC))
    ).all()
    assert (
        map_ == np.asarray(Image.fromarray(labels).resize((24, 24), Image.Resampling.NEAREST))
    ).all()
    assert (resized_image(image, 24) == changed).all()
    assert stretched(image[:24, :24], labels[:24, :24], 24)[1] is not None
    assert set(np.unique(map_)) <= set(np.unique(labels))  # never a mixture of classes


@pytest.mark.parametrize(
    "settings", [PLAIN, RECIPE, {**RECIPE, "flip": False}, {**PLAIN, "flip": True}]
)
def test_image_and_mask_stay_together(settings: SegmentationAugmentation) -> None:
    """An image in the colours of its classes has them where the mask says, but for the pixels along edges."""
    augmenter = SegmentationAugmenter(settings, size=64, seed=3)
    for row in range(12):
        labels = mask(row, (90, 70))
        changed, map_ = augmenter(image_of(labels, noise=0.0), labels, epoch=0, row=row)
        assert changed.shape == (64, 64, 3)
        assert map_.shape == (64, 64)
        shown = map_ != 255
        agreement = (nearest_class(changed) == map_)[shown].mean()
        assert agreement > 0.93, row
        # Not by chance: a shift by some pixels costs more.
        assert (nearest_class(np.roll(changed, 6, axis=1)) == map_)[shown].mean() < agreement - 0.02
        assert (changed[~shown] == 0).all()


def test_small_pairs_are_padded_and_padding_is_not_labelled() -> None:
    augmenter = SegmentationAugmenter(
        SegmentationAugmentation(
            scale=[0.5, 0.5], largest_share=1.0, flip=False, photometric=False
        ),
        64,
        seed=1,
    )
    labels = mask(1, (80, 80))
    image, map_ = augmenter(image_of(labels), labels, epoch=0, row=0)
    assert (map_[:32, :32] != 255).all()
    assert (map_[32:] == 255).all()
    assert (map_[:, 32:] == 255).all()
    assert not image[32:].any()


def test_a_draw_is_a_function_of_seed_epoch_and_row() -> None:
    everything = SegmentationAugmentation(
        scale=[0.5, 2.0], largest_share=0.75, flip=True, photometric=True
    )
    labels = mask(5, (90, 70))
    image = image_of(labels)

    def made(seed: int, epoch: int, row: int) -> bytes:
        changed, map_ = SegmentationAugmenter(everything, 48, seed)(image, labels, epoch, row)
        return changed.tobytes() + map_.tobytes()

    torch.manual_seed(1)
    first = made(1, 2, 3)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert made(1, 2, 3) == first
    torch.random.set_rng_state(state)
    assert len({first, made(2, 2, 3), made(1, 3, 3), made(1, 2, 4)}) == 4


def test_half_of_the_pairs_are_flipped() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[:, :8] = 1
    augmenter = SegmentationAugmenter({**PLAIN, "flip": True}, 16, seed=0)
    flipped = [augmenter(image_of(labels), labels, 0, row)[1][0, 0] == 0 for row in range(400)]
    assert 160 < sum(flipped) < 240


def test_windows_that_one_class_fills_are_drawn_anew() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 44:] = 1  # most windows show class 0 alone
    counts = []
    for share in (1.0, 0.75):
        augmenter = SegmentationAugmenter(
            {**PLAIN, "scale": [2.0, 2.0], "largest_share": share}, 32, seed=0
        )
        shares = [
            largest_share(augmenter(image_of(labels), labels, 0, row)[1]) for row in range(60)
        ]
        counts.append(sum(found > 0.75 for found in shares))
    assert counts[0] > 2 * counts[1]
    assert largest_share(np.full((4, 4), 255, np.uint8)) == 0.0
    assert largest_share(np.array([[0, 1, 1, 255]], np.uint8)) == pytest.approx(2 / 3)


def test_the_scale_covers_its_range() -> None:
    """The mask is a ramp of columns, so its steps tell how much was shown."""
    labels = np.repeat(np.arange(100, dtype=np.uint8)[None], 100, axis=0)
    augmenter = SegmentationAugmenter({**RECIPE, "flip": False}, 50, seed=0)
    factors = []
    for row in range(200):
        map_ = augmenter(np.zeros((100, 100, 3), np.uint8), labels, 0, row)[1]
        line = map_[0][map_[0] != 255].astype(int)
        factors.append((len(line) - 1) / (line[-1] - line[0]) * 2)
    assert 0.49 < min(factors) < 0.6
    assert 1.9 < max(factors) < 2.1


def test_photometric_changes_leave_shapes_alone() -> None:
    labels = mask(2, (40, 40))
    image = image_of(labels, noise=0.0)
    changed = [photometric(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in changed)
    assert sum((one != image).any() for one in changed) > 12
    # One class is of one colour, before and after.
    for one in changed:
        assert all(
            len(np.unique(one[labels == k].reshape(-1, 3), axis=0)) == 1 for k in np.unique(labels)
        )
