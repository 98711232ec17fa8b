"""Settings of labelled images that their folder decides: files, classes, columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from datamodules.images.listing import Listing
from datamodules.inferring.findings import Finding, with_findings
from datamodules.inferring.splits import dataset_folder, split_of
from datamodules.inferring.tables import drawn_test
from datamodules.reading.errors import DataError
from datamodules.reading.sources import AUTO
from run_folders.errors import shortened

_MOST_CLASSES = 100
# Columns of a table if none is named.
_IMAGE, _LABEL = "image", "label"


def infer_images(settings: Mapping[str, Any]) -> list[Finding]:
    """Find files, columns and classes of labelled images.

    Args:
        settings: All arguments of `ImageDataModule`; None or `auto` where open.

    Raises:
        DataError: If the folder does not decide a setting.
    """
    findings: list[Finding] = []
    needs_files = AUTO in settings["files"].values()
    if needs_files or settings["classes"] is None:
        folder, findings = dataset_folder(settings["data_dir"], settings["folder"])
        if needs_files:
            findings += _files(folder, settings)
    settled = with_findings(settings, findings)
    for key, default in (("image_column", _IMAGE), ("label_column", _LABEL)):
        if settled[key] is None:
            findings.append(Finding(key, default, ""))
    classes = settled["classes"]
    if classes is None:
        train = settled["files"]["train"]
        classes = _class_folders(folder / train, settled["num_classes"])
        where = "the dataset" if train == "." else train
        findings.append(Finding("classes", classes, f"the folders in {where}"))
    if settled["num_classes"] is None:
        findings.append(Finding("num_classes", len(classes), ""))
    return findings


def split_findings(
    settings: Mapping[str, Any], found: Mapping[str, str], where: str
) -> list[Finding]:
    """Return the findings for the splits whose files are open, and for `test_fraction`.

    Args:
        settings: All arguments of the datamodule.
        found: Split -> its file, folder or name.
        where: Where they were found.

    Raises:
        DataError: If there is a test split and `test_fraction` is set.
    """
    findings = []
    for split in ("train", "val", "test"):
        if settings["files"][split] == AUTO:
            name = found.get(split)
            why = where if name else f"no {split} in {where}: drawn from train"
            findings.append(Finding(f"files.{split}", name, why))
    if settings["files"]["test"] == AUTO:
        findings += drawn_test(with_findings(settings, findings))
    return findings


def missing_folder(settings: Mapping[str, Any]) -> DataError:
    """Return the error for a dataset without a folder."""
    places = f"{Path(settings['data_dir']).resolve()} nor in {Path.cwd()}"
    return DataError(
        f"no folder {settings['folder']!r} in {places}; put it there, give its path in "
        f"data.folder, or name a dataset on the hub in data.hub and its splits in data.files"
    )


def _files(folder: Path, settings: Mapping[str, Any]) -> list[Finding]:
    """Return the findings for the splits whose files are open."""
    if not folder.is_dir():
        raise missing_folder(settings)
    found = _split_folders(folder)
    if "train" not in found:
        found["train"] = "."
    return split_findings(settings, found, f"the folders in {folder.name}")


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
