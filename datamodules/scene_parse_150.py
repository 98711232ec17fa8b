"""SceneParse150, the scene parsing benchmark of ADE20K (Zhou et al. 2017): 20,210 training and 2,000 validation images."""

from datamodules.segmentation import SegmentationDataModule


class SceneParse150DataModule(SegmentationDataModule):
    """The benchmark in its own layout, ADEChallengeData2016.

    The labels of its test images are not public. Its validation images are therefore our test split, which chooses nothing,
    and a part of its training images, chosen by the seed, is our validation split.
    """
