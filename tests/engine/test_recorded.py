"""The config of an earlier run: its format, and files that cannot be read."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from engine.config.recorded import FORMAT, read_config, write_config
from run_folders.run_folder import RunFolderError


def test_a_config_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    cfg = OmegaConf.create({"seed": 1, "model": {"head": {"hidden": 8}}})
    write_config(path, cfg)
    assert path.read_text().startswith(f"format: {FORMAT}\n")
    assert read_config(path) == cfg


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("format: 99\nseed: 1\n", "has the format 99; this version of Thaw reads 1 to 2"),
        ("format: [1]\nseed: 1\n", "has the format"),
        ("a: [1\n", "cannot be read"),
        ("a: ${\n", "cannot be read"),
        ("", "has no keys"),
        ("- 1\n", "has no keys"),
        (None, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RunFolderError, match=message):
        read_config(path)
