"""Augmentation of pairs: image and mask stay aligned, and each pair has its own random draws."""

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


def test_stretching_a_pair_equals_pillows_resize() -> None:
    labels = mask(1, (50, 30))
    image = image_of(labels)
    changed, changed_labels = stretched(image, labels, 24)
    assert (
        changed == np.asarray(Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC))
    ).all()
    assert (
        changed_labels
        == np.asarray(Image.fromarray(labels).resize((24, 24), Image.Resampling.NEAREST))
    ).all()
    assert (resized_image(image, 24) == changed).all()
    assert stretched(image[:24, :24], labels[:24, :24], 24)[1] is not None
    assert set(np.unique(changed_labels)) <= set(np.unique(labels))  # never a mixture of classes


@pytest.mark.parametrize(
    "settings", [PLAIN, RECIPE, {**RECIPE, "flip": False}, {**PLAIN, "flip": True}]
)
def test_image_and_mask_stay_aligned(settings: SegmentationAugmentation) -> None:
    """The colour of each pixel matches its class in the mask, except along edges."""
    augmenter = SegmentationAugmenter(settings, size=64, seed=3)
    for row in range(12):
        labels = mask(row, (90, 70))
        changed, changed_labels = augmenter(image_of(labels, noise=0.0), labels, epoch=0, row=row)
        assert changed.shape == (64, 64, 3)
        assert changed_labels.shape == (64, 64)
        labelled = changed_labels != 255
        agreement = (nearest_class(changed) == changed_labels)[labelled].mean()
        assert agreement > 0.93, row
        # Shifting the image by a few pixels lowers the agreement.
        shifted = nearest_class(np.roll(changed, 6, axis=1))
        assert (shifted == changed_labels)[labelled].mean() < agreement - 0.02
        assert (changed[~labelled] == 0).all()


def test_small_pairs_are_padded_and_padding_is_not_labelled() -> None:
    augmenter = SegmentationAugmenter(
        SegmentationAugmentation(
            scale=[0.5, 0.5], largest_share=1.0, flip=False, photometric=False
        ),
        64,
        seed=1,
    )
    labels = mask(1, (80, 80))
    image, changed_labels = augmenter(image_of(labels), labels, epoch=0, row=0)
    assert (changed_labels[:32, :32] != 255).all()
    assert (changed_labels[32:] == 255).all()
    assert (changed_labels[:, 32:] == 255).all()
    assert not image[32:].any()


def test_random_draws_depend_only_on_seed_epoch_and_row() -> None:
    everything = SegmentationAugmentation(
        scale=[0.5, 2.0], largest_share=0.75, flip=True, photometric=True
    )
    labels = mask(5, (90, 70))
    image = image_of(labels)

    def augmented(seed: int, epoch: int, row: int) -> bytes:
        changed, changed_labels = SegmentationAugmenter(everything, 48, seed)(
            image, labels, epoch, row
        )
        return changed.tobytes() + changed_labels.tobytes()

    torch.manual_seed(1)
    first = augmented(1, 2, 3)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    assert augmented(1, 2, 3) == first
    torch.random.set_rng_state(state)
    assert len({first, augmented(2, 2, 3), augmented(1, 3, 3), augmented(1, 2, 4)}) == 4


def test_half_of_the_pairs_are_flipped() -> None:
    labels = np.zeros((16, 16), np.uint8)
    labels[:, :8] = 1
    augmenter = SegmentationAugmenter({**PLAIN, "flip": True}, 16, seed=0)
    flipped = [augmenter(image_of(labels), labels, 0, row)[1][0, 0] == 0 for row in range(400)]
    assert 160 < sum(flipped) < 240


def test_windows_that_one_class_fills_are_drawn_again() -> None:
    labels = np.zeros((64, 64), np.uint8)
    labels[:, 44:] = 1  # most windows contain only class 0
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
    """The columns of the mask are numbered, so the numbers show how much of it was cut out."""
    labels = np.repeat(np.arange(100, dtype=np.uint8)[None], 100, axis=0)
    augmenter = SegmentationAugmenter({**RECIPE, "flip": False}, 50, seed=0)
    factors = []
    for row in range(200):
        changed_labels = augmenter(np.zeros((100, 100, 3), np.uint8), labels, 0, row)[1]
        line = changed_labels[0][changed_labels[0] != 255].astype(int)
        factors.append((len(line) - 1) / (line[-1] - line[0]) * 2)
    assert 0.49 < min(factors) < 0.6
    assert 1.9 < max(factors) < 2.1


def test_photometric_changes_keep_shapes() -> None:
    labels = mask(2, (40, 40))
    image = image_of(labels, noise=0.0)
    changed = [photometric(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(one.shape == image.shape and one.dtype == np.uint8 for one in changed)
    assert sum((one != image).any() for one in changed) > 12
    # Each class still has a single colour.
    for one in changed:
        assert all(
            len(np.unique(one[labels == k].reshape(-1, 3), axis=0)) == 1 for k in np.unique(labels)
        )
