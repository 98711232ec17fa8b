"""The folder in which the commands of a page run, and the small data that they need.

A command names its data, columns and classes. The data is made to fit, unless a block of the page
has written it.
"""

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from run_folders.own_packages import VARIABLE
from tests.conftest import made_rows
from tests.images import COLOURS, encoded, picture
from tests.masks import image_of, mask

SPLITS = ("train", "val", "test")
_ROWS = 20
_IMAGES_OF_A_CLASS = 4
_SUFFIXES = {".csv", ".tsv", ".jsonl", ".parquet", ".txt"}


class Workplace:
    """The working directory of a page's commands.

    Attributes:
        folder: The directory.
        backbone: A small text encoder with its tokenizer, which takes the place of one of the hub.
        environment: Variables that commands of the page have set.
        paths: Folders of own packages.
        run_kinds: The kinds of commands that have run, and whether only their plan was printed.
    """

    def __init__(self, folder: Path, backbone: Path, run_of: Callable[[str], Path]) -> None:
        self.folder = folder
        self.backbone = backbone
        self._run_of = run_of
        self.environment: dict[str, str] = {}
        self.paths: list[Path] = []
        self.run_kinds: set[tuple[frozenset[str], bool]] = set()
        self._copies = 0
        self._made: set[Path] = set()

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Make the folder the working directory, with the own packages of the page."""
        modules = set(sys.modules)
        with contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            for path in (self.folder, *self.paths):
                patch.syspath_prepend(path)
            yield
        for name in set(sys.modules) - modules:
            if str(self.folder) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]

    def allow(self, place: Path, package: str) -> None:
        """Install an own package, as far as the commands of the page can tell."""
        self.paths.append(place)
        self.environment[VARIABLE] = package

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, kind: str) -> Path:
        """Return a new copy of a finished run of texts, images or masks, or of a sweep."""
        self._copies += 1
        copy = self.folder / "runs" / f"{kind}_{self._copies}"
        shutil.copytree(self._run_of(kind), copy)
        return copy

    def provide_input(self, name: str, *, labelled: bool = False) -> Path:
        """Make the file or folder of new texts or images that a command reads."""
        path = self.folder / name
        if path.exists():
            return path
        if path.suffix in _SUFFIXES:
            labels = ["fake", "real"] if labelled else None
            _write_table(path, _texts("text", "label", labels or ["fake", "real"]))
        else:
            path.mkdir(parents=True)
            for i, colour in enumerate(COLOURS):
                picture(colour, i, (32, 32)).save(path / f"{colour}.png")
        return path

    def provide_data(self, cfg: DictConfig) -> None:
        """Make the data that a config reads."""
        data: dict[str, Any] = {
            str(key): value
            for key, value in OmegaConf.to_container(cfg.data, resolve=False).items()  # type: ignore[union-attr]
        }
        folder = self._place_of(cfg, data)
        if folder in self._made:  # for another command, perhaps with other columns
            shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
        if "embedded" in str(data["files"]) or folder.exists():
            return
        self._made.add(folder)
        target = data["_target_"].rpartition(".")[2]
        if target == "NotesDataModule":
            _write_notes(folder)
        elif target == "WeighedNotesDataModule":
            for split in SPLITS:
                numbers = {"text": [f"{split} {i}" for i in range(9)], "grams": list(range(9))}
                _write_table(folder / f"{split}.csv", numbers)
        elif "Segmentation" in target:
            self._write_masks(folder, data)
        elif "Image" in target or "Cifar" in target:
            _write_images(folder, data)
        elif "Text" in target or "Covid" in target:
            _write_texts(folder, data)

    def _place_of(self, cfg: DictConfig, data: dict[str, Any]) -> Path:
        here = self.folder / data["folder"]
        return here if here.exists() else self.folder / str(cfg.paths.data_dir) / data["folder"]

    def _write_masks(self, folder: Path, data: dict[str, Any]) -> None:
        listed = self.folder / str(data["class_list"])
        classes = yaml.safe_load(listed.read_text())["classes"] if listed.is_file() else [0, 1]
        images = data["images"] or "images/{split}"
        annotations = data["annotations"] or "annotations/{split}"
        suffix = data["annotation_suffix"] or ".png"
        shift = 1 if "scene_parse" in str(data["class_list"]) else 0
        for split, name in _files(data, dict(zip(SPLITS, SPLITS, strict=True))).items():
            for number in range(_IMAGES_OF_A_CLASS):
                labels = mask(10 * len(split) + number, (64, 48), len(classes))
                for pattern, content, ending in (
                    (images, image_of(labels), ".jpg"),
                    (annotations, labels + shift, suffix),
                ):
                    path = folder / pattern.format(split=name) / f"{number}{ending}"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(content).save(path)


def _files(data: dict[str, Any], found: dict[str, str]) -> dict[str, str]:
    """Return split -> file; `auto` has the usual names."""
    files = data["files"]
    if not isinstance(files, dict):
        return found
    named = {split: found[split] if file == "auto" else file for split, file in files.items()}
    return {split: file for split, file in named.items() if file}


def _classes(data: dict[str, Any]) -> list[str]:
    if isinstance(data["label_column"], list):
        return list(data["label_column"])
    return list(data["classes"]) if isinstance(data["classes"], list) else ["bad", "good"]


def _texts(
    text: str, label: str | list[str], classes: list[str], file: str = ""
) -> dict[str, list[Any]]:
    """Return the columns of a table of texts, which differ from those of other files."""
    rows = made_rows(_ROWS, 1, tuple(classes))
    columns = {"id": [row[0] for row in rows], text: [f"{row[1]} {file}" for row in rows]}
    return columns | _labels(label, classes, [row[2] for row in rows])


def _labels(label: str | list[str], classes: list[str], values: list[str]) -> dict[str, list[Any]]:
    if isinstance(label, list):
        return {name: [int(value == name) for value in values] for name in classes}
    return {label: values}


def _write_texts(folder: Path, data: dict[str, Any]) -> None:
    text, label = data["text_column"] or "text", data["label_column"] or "label"
    files = _files(data, {split: f"{split}.csv" for split in SPLITS}).values()
    single = folder.suffix in _SUFFIXES
    for path in [folder] if single else [folder / file for file in files]:
        columns = _texts(text, label, _classes(data), path.stem)
        if group := data.get("group_column"):
            columns[group] = [number // 2 for number in range(_ROWS)]
        _write_table(path, columns)


def _write_notes(folder: Path) -> None:
    """Write the folder of the example package: a text file for each sample."""
    for split in SPLITS:
        for bird in ("heron", "robin"):
            for number in range(_IMAGES_OF_A_CLASS):
                path = folder / split / bird / f"{number}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"a {bird} in the {split} {number}", encoding="utf-8")


def _write_images(folder: Path, data: dict[str, Any]) -> None:
    classes = list(dict.fromkeys([*_classes(data), "other"]))[: max(2, len(_classes(data)))]
    tables = isinstance(data["label_column"], list) or folder.suffix in _SUFFIXES
    names = {split: f"{split}.csv" if tables else split for split in SPLITS}
    for split, file in _files(data, names).items():
        pairs = list(islice(cycle(zip(classes, cycle(COLOURS))), _IMAGES_OF_A_CLASS * len(classes)))
        if Path(file).suffix in _SUFFIXES:
            _write_image_table(folder, file, data, split, pairs)
            continue
        for number, (name, colour) in enumerate(pairs):
            path = folder / file / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(colour, 100 * len(split) + number, (32, 32)).save(path)


def _write_image_table(
    folder: Path, file: str, data: dict[str, Any], split: str, pairs: list[tuple[str, str]]
) -> None:
    pictures = [picture(c, 100 * len(split) + i, (32, 32)) for i, (_, c) in enumerate(pairs)]
    column = data["image_column"] or "image"
    folder.mkdir(parents=True, exist_ok=True)
    if file.endswith(".parquet"):
        values: list[Any] = [{"bytes": encoded(image), "path": None} for image in pictures]
    else:
        values = [f"{split}_{i}.png" for i in range(len(pictures))]
        for name, image in zip(values, pictures, strict=True):
            image.save(folder / name)
    label, classes = data["label_column"] or "label", _classes(data)
    labels: list[Any] = [name for name, _ in pairs]
    if file.endswith(".parquet") and len(classes) > 2:  # as the hub's tables, with numbers
        labels = [classes.index(name) for name in labels]
    _write_table(folder / file, {column: values} | _labels(label, classes, labels))


def _write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    table = pd.DataFrame(columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    elif path.suffix == ".jsonl":
        table.to_json(path, orient="records", lines=True)
    elif path.suffix == ".txt":
        path.write_text("\n".join(table[table.columns[1]]), encoding="utf-8")
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
