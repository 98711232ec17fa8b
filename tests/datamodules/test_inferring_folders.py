"""Settings of image datasets that their folder decides."""

from pathlib import Path

from omegaconf import OmegaConf

from run_folders.run_folder import RunFolder
from tests.conftest import Train
from tests.images import COLOURS, image_folder

SMALL = (
    "data=image", "data.folder=birds", "model=sample_image_classifier",
    "model.backbone.widths=[8,8]", "data.size=16", "trainer.max_epochs=1",
)  # fmt: skip


def test_a_folder_is_enough_for_a_run(train: Train, tmp_path: Path) -> None:
    image_folder(tmp_path / "data" / "birds", {"train": 3, "valid": 1, "Test": 2})
    ended = train(*SMALL, f"paths.data_dir={tmp_path / 'data'}")
    assert ended.code == 0, ended.err
    data = OmegaConf.load(RunFolder(ended.folder).config).data
    assert data.files == {"train": "train", "val": "valid", "test": "Test"}
    assert data.classes == sorted(COLOURS)
    assert (data.num_classes, data.image_column, data.label_column) == (5, "image", "label")
    assert "data.classes" in ended.out
    assert "the folders in train" in ended.out
    assert RunFolder(ended.folder).read_json("metrics.json")["test"]["n"] == 10
