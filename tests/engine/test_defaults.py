"""Every default is in a signature: Python and the config files build the same objects."""

import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from datamodules.image import ImageDataModule
from datamodules.image_samples import SampleImagesDataModule
from datamodules.samples import SampleTextDataModule
from datamodules.scene_samples import SampleScenesDataModule
from datamodules.segmentation import SegmentationDataModule
from datamodules.text import TextDataModule
from datamodules.texts.cleaning import DEFAULT_CLEANING
from engine.config.composing.paths import CONFIGS
from engine.config.signatures import parameters_of
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.segmenter import Segmenter

# Arguments that name the data or the network, of which no default could be right for a user.
NAMES = {
    "annotation_suffix",
    "annotations",
    "backbone",
    "class_list",
    "classes",
    "files",
    "folder",
    "hub",
    "id_column",
    "image_column",
    "images",
    "label_column",
    "num_classes",
    "save_dir",
    "text_column",
    "tokenizer",
}


def options() -> Iterator[Any]:
    """Yield each class of Thaw that a file names, and the node with its arguments."""
    for path in sorted(CONFIGS.rglob("*.yaml")):
        body: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, node in nodes(body):
            module, _, attribute = str(node["_target_"]).rpartition(".")
            if module.startswith(("datamodules", "lightning_modules")):
                target = getattr(import_module(module), attribute)
                yield pytest.param(target, node, id=f"{path.parent.name}/{path.stem}{name}")


def nodes(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        if "_target_" in value:
            yield name, value
        for key, inner in value.items():
            yield from nodes(inner, f"{name}.{key}")


@pytest.mark.parametrize(("target", "node"), list(options()))
def test_a_file_sets_no_default_of_its_own(target: Any, node: dict[str, Any]) -> None:
    for key, parameter in parameters_of(target).items():
        value = node.get(key)
        follows = isinstance(value, str) and "${" in value
        if key not in node or follows or key in NAMES:
            continue
        assert parameter.default is not inspect.Parameter.empty, f"{key} has no default in Python"
        assert value == parameter.default, key


@pytest.mark.parametrize(
    ("target", "needed"),
    [
        (TextDataModule, ["folder", "tokenizer"]),
        (ImageDataModule, ["folder"]),
        (SegmentationDataModule, ["folder"]),
        (SampleTextDataModule, []),
        (SampleImagesDataModule, []),
        (SampleScenesDataModule, []),
        (ImageClassifier, ["backbone", "num_classes"]),
        (Segmenter, ["backbone", "num_classes"]),
    ],
)
def test_only_names_are_required(target: type, needed: list[str]) -> None:
    required = [
        name
        for name, parameter in parameters_of(target).items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    ]
    assert required == needed


@pytest.mark.parametrize(
    "module", [SampleTextDataModule, SampleImagesDataModule, SampleScenesDataModule]
)
def test_samples_are_built_from_python(module: Any) -> None:
    """A part of the numbers of rows may be given."""
    count = 24
    data = module(rows={"train": count, "val": 8, "test": 8}, batch_size=8)
    data.setup()
    assert sum(len(batch["index"]) for batch in data.train_dataloader()) == count
    assert module(rows={"train": count}).rows["val"] == module().rows["val"] > 8


def test_texts_are_read_with_the_required_arguments_only(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        rows = "".join(f"word{i} {split} text,{'ab'[i % 2]}\n" for i in range(8))
        (tmp_path / f"{split}.csv").write_text(f"text,label\n{rows}")
    files: Any = {split: f"{split}.csv" for split in ("train", "val", "test")}
    data = TextDataModule(str(tmp_path), {"vocab_size": 60}, files, classes=["a", "b"])
    data.setup()
    assert sum(len(batch["index"]) for batch in data.train_dataloader()) == 8
    part = TextDataModule(str(tmp_path), {"vocab_size": 60}, files, {"url": True}, ["a", "b"])
    assert part.cleaning == {"url": True}
    assert DEFAULT_CLEANING["demojize"]
