"""Settings of labelled images that their folder decides: files, classes, columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from datamodules.images.listing import Listing
from datamodules.inferring.findings import Finding, completed
from datamodules.inferring.splits import TEST_FRACTION, dataset_folder, split_of
from datamodules.reading.errors import DataError
from datamodules.reading.sources import AUTO, AUTO_FILES
from run_folders.errors import shortened

_MOST_CLASSES = 100
# Columns of a table if none is named.
_IMAGE, _LABEL = "image", "label"


def infer_images(settings: Mapping[str, Any]) -> list[Finding]:
    """Find files, columns and classes of labelled images.

    Args:
        settings: Arguments of `ImageDataModule`, of plain types; None or `auto` where open.

    Raises:
        DataError: If the folder does not decide a setting.
    """
    files = settings.get("files") or AUTO_FILES
    findings: list[Finding] = []
    needs_files = AUTO in files.values()
    if needs_files or settings.get("classes") is None:
        place, findings = dataset_folder(settings.get("data_dir", "data"), settings["folder"])
        if needs_files:
            findings += _files(place, files)
    settled = completed({"files": files, **settings}, findings)
    for key, default in (("image_column", _IMAGE), ("label_column", _LABEL)):
        if settled.get(key) is None:
            findings.append(Finding(key, default, ""))
    classes = settled.get("classes")
    if classes is None:
        train = settled["files"]["train"]
        classes = _class_folders(place / train, settled.get("num_classes"))
        where = "the dataset" if train == "." else train
        findings.append(Finding("classes", classes, f"the folders in {where}"))
    if settled.get("num_classes") is None:
        findings.append(Finding("num_classes", len(classes), ""))
    return findings


def _files(place: Path, files: Mapping[str, str | None]) -> list[Finding]:
    """Return the findings for the splits whose files are open."""
    if not place.is_dir():
        msg = f"{place} does not exist; set data.folder to the folder of the dataset"
        raise DataError(msg)
    found = _split_folders(place)
    if "train" not in found:
        found["train"] = "."
    findings = []
    for split in (split for split, name in files.items() if name == AUTO):
        name = found.get(split)
        why = f"the folders in {place.name}" if name else f"no folder for it in {place.name}"
        if split == "train" and name == ".":
            why = f"{place.name} has a folder for each class, and none for train, val and test"
        elif name is None:
            why += ": a part of train"
        findings.append(Finding(f"files.{split}", name, why))
    if files.get("test") == AUTO and "test" not in found:
        findings.append(Finding("test_fraction", TEST_FRACTION, "the default"))
    return findings


def _split_folders(place: Path) -> dict[str, str]:
    """Return split -> the folder of its class folders."""
    found: dict[str, str] = {}
    for name in Listing().top(place)[0]:
        split = split_of(name)
        if split is None or not Listing().top(place / name)[0]:
            continue
        if split in found:
            msg = (
                f"{place}: both {found[split]} and {name} may be {split}; which one is it? "
                f"Set data.files.{split}"
            )
            raise DataError(msg)
        found[split] = name
    return found


def _class_folders(folder: Path, num_classes: int | None) -> list[str]:
    """Return the names of the class folders, sorted; numbers by value."""
    if not folder.is_dir():
        msg = f"{folder} is no folder with a folder for each class; set data.classes"
        raise DataError(msg)
    names = sorted({normalize("NFC", name) for name in Listing().top(folder)[0]})
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    if len(names) < 2:  # noqa: PLR2004
        msg = (
            f"{folder}: has it a folder of images for each class? Found: "
            f"{shortened(names) or 'no folder'}; set data.files and data.classes"
        )
        raise DataError(msg)
    if len(names) > _MOST_CLASSES and num_classes is None:
        msg = (
            f"{folder} has {len(names)} folders ({shortened(names)}); is each one a class? "
            f"If so, set data.num_classes={len(names)}"
        )
        raise DataError(msg)
    return names
