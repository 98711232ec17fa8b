"""The smallest runs of each kind of input, for tests from Python."""

from tests.attacks.sound import SMALL, TINY_BERT, TRAIN

TEXTS = (SMALL, *TINY_BERT, *TRAIN)
IMAGES = ("data=sample_images", "model=sample_image_classifier", SMALL, *TRAIN)
MASKS = ("data=sample_scenes", "model=sample_segmenter", SMALL, *TRAIN)
