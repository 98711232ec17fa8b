"""Augmentation equals torchvision's; random draws depend only on (seed, epoch, row)."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandAugment
from torchvision.transforms.v2 import functional as reference

from datamodules.images.transforms import (
    NO_AUGMENTATION,
    Augmentation,
    Augmenter,
    _image_seed,
    crop,
    rotate,
)

EVERYTHING = Augmentation(
    crop_padding=3, flip=True, rotation=15.0, rand_augment={"num_ops": 2, "magnitude": 9}
)


def images(count: int = 6, height: int = 20, width: int = 28) -> torch.Tensor:
    return torch.randint(
        0,
        256,
        (count, 3, height, width),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )


def test_rotation_equals_torchvisions() -> None:
    degrees = torch.tensor([0.0, 15.0, -15.0, 7.3, 90.0, -123.0])
    for ours, image, angle in zip(rotate(images(), degrees), images(), degrees, strict=True):
        theirs = reference.rotate(image, float(angle), interpolation=InterpolationMode.BILINEAR)
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_crop_equals_torchvisions() -> None:
    rows, columns = torch.tensor([0, 1, 2, 4, 8, 3]), torch.tensor([8, 0, 5, 4, 2, 7])
    for ours, image, row, column in zip(
        crop(images(), 4, rows, columns), images(), rows, columns, strict=True
    ):
        padded = reference.pad(image, [4], padding_mode="reflect")
        assert torch.equal(ours, reference.crop(padded, int(row), int(column), 20, 28))


def test_flip_mirrors_about_half_and_keeps_the_rest() -> None:
    stack = images(400)
    flipped = Augmenter({**NO_AUGMENTATION, "flip": True}, 400, 1, 0)(stack, torch.arange(400))
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(flipped, stack, strict=True)]
    assert 160 < sum(mirrored) < 240
    assert all(
        is_mirrored or torch.equal(a, b)
        for is_mirrored, a, b in zip(mirrored, flipped, stack, strict=True)
    )


def test_every_window_is_drawn() -> None:
    augmenter = Augmenter({**NO_AUGMENTATION, "crop_padding": 1}, 500, 3, 0)
    corner = torch.zeros(1, 3, 9, 9, dtype=torch.uint8)
    corner[..., 4, 4] = 255
    places = {
        tuple(int(i) for i in image[0].nonzero()[0])
        for image in augmenter(corner.expand(500, -1, -1, -1), torch.arange(500))
    }
    assert places == {(r, c) for r in (3, 4, 5) for c in (3, 4, 5)}


@pytest.mark.parametrize("rand_augment", [None, {"num_ops": 2, "magnitude": 9}])
def test_change_depends_only_on_seed_epoch_and_row(rand_augment: object) -> None:
    settings = Augmentation(**{**EVERYTHING, "rand_augment": rand_augment})  # type: ignore[typeddict-item]
    stack, index = images(), torch.tensor([4, 0, 9, 2, 7, 5])
    whole = Augmenter(settings, 10, 1, 2)(stack, index)
    assert whole.dtype == torch.uint8
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again = Augmenter(settings, 10, 1, 2)
    parts = torch.cat([again(stack[3:], index[3:]), again(stack[:3], index[:3])])
    assert torch.equal(parts, torch.cat([whole[3:], whole[:3]]))
    assert torch.equal(torch.random.get_rng_state(), state)
    for seed, epoch in ((1, 3), (2, 2)):
        assert not torch.equal(Augmenter(settings, 10, seed, epoch)(stack, index), whole)


def test_rand_augment_equals_torchvisions_with_the_seed_of_the_image() -> None:
    settings = Augmentation(
        crop_padding=0, flip=False, rotation=0.0, rand_augment={"num_ops": 2, "magnitude": 9}
    )
    changed = Augmenter(settings, 10, 5, 3)(images(4), torch.tensor([3, 8, 1, 0]))
    for ours, image, row in zip(changed, images(4), (3, 8, 1, 0), strict=True):
        torch.manual_seed(_image_seed(5, 3, row))
        assert torch.equal(ours, RandAugment(2, 9)(image))
    assert not torch.equal(changed, images(4))


def test_images_of_a_batch_get_different_changes() -> None:
    same = images(1).expand(8, -1, -1, -1)
    changed = Augmenter({**EVERYTHING, "rand_augment": None}, 8, 1, 0)(same, torch.arange(8))
    assert len({image.numpy().tobytes() for image in changed}) == 8
