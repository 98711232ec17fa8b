"""Settings of segmentation datasets that their folder decides."""

from pathlib import Path

from omegaconf import OmegaConf

from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.datamodules.test_segmentation import NETWORK
from tests.masks import segmentation_folder

SMALL = (
    "data=segmentation", "data.folder=rooms", "data.size=32", f"model.backbone={NETWORK}",
    "trainer.max_epochs=1",
)  # fmt: skip


def test_a_folder_is_enough_for_a_run(train: Train, tmp_path: Path) -> None:
    segmentation_folder(tmp_path / "data" / "rooms", {"train": 6, "val": 2, "test": 2})
    ended = train(*SMALL, f"paths.data_dir={tmp_path / 'data'}")
    assert ended.code == 0, ended.err
    data = OmegaConf.load(RunFolder(ended.folder).config).data
    assert (data.images, data.annotations) == ("images/{split}", "annotations/{split}")
    assert data.num_classes == len(data.class_list.classes) == 11
    assert "11 classes: class 0" in ended.out
