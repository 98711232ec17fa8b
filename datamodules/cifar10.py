"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of ten classes, 32 x 32 pixels."""

from datamodules.image import ImageDataModule


class CIFAR10DataModule(ImageDataModule):
    """The dataset as published; it has no validation split, so a part of train chosen by the seed is kept back."""
