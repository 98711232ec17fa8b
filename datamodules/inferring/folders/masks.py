"""Settings of images with masks that their folder decides: files, places, classes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datamodules.images.content import content_of
from datamodules.images.listing import Listing
from datamodules.inferring.findings import Finding, with_findings
from datamodules.inferring.folders.images import missing_folder, split_findings
from datamodules.inferring.folders.mask_layouts import LISTED, find_layout
from datamodules.inferring.folders.mask_values import (
    LIST_FILES,
    NAME_FILES,
    NamedClasses,
    class_list_of,
    class_list_of_map,
    named_classes,
    values_of,
)
from datamodules.inferring.tables import drawn_test, file_findings, located
from datamodules.masks.lists import LIST, read_list
from datamodules.masks.rows import PARQUET, SPLIT
from datamodules.reading.errors import BadRow, DataError
from datamodules.reading.sources import AUTO
from datamodules.reading.tables import SUFFIXES, read_rows
from run_folders.errors import shortened

if TYPE_CHECKING:
    from datamodules.masks.class_list import ClassList

_PLACES = ("images", "annotations", "image_suffix", "annotation_suffix")


def infer_masks(settings: Mapping[str, Any]) -> list[Finding]:
    """Find files, places and classes of images with masks.

    Args:
        settings: All arguments of `SegmentationDataModule`; None or `auto` where open.

    Raises:
        DataError: If the folder does not decide a setting.
    """
    is_open = settings["files"]["test"] == AUTO
    folder, findings = located(settings)
    settings = with_findings(settings, findings)
    _check_table(folder, settings)
    if is_open and settings["files"]["test"] is None:
        findings += drawn_test(settings)
    needed = [settings[key] for key in (*_PLACES, "class_list") if key != "image_suffix"]
    if AUTO in settings["files"].values() or None in needed:
        findings += _layout(folder, settings)
        settled = with_findings(settings, findings)
        if settings["class_list"] is None:
            findings.append(_classes(folder, settled))
    if settings["num_classes"] is None:
        class_list = with_findings(settings, findings)["class_list"]
        findings.append(Finding("num_classes", len(_read(class_list).names), ""))
    return findings


def _check_table(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise `DataError` if the train split is a table, but no Parquet file."""
    table = folder / settings["files"]["train"]
    if table.suffix.lower() in SUFFIXES and table.suffix != PARQUET:
        msg = f"{table}: images with masks are in folders, lists (.txt) or {PARQUET} files"
        raise DataError(msg)


def _read(class_list: str | Mapping[str, Any]) -> "ClassList":
    from datamodules.masks.class_list import ClassList  # imports torch

    return ClassList.read(class_list)


def _layout(folder: Path, settings: Mapping[str, Any]) -> list[Finding]:
    """Return the findings for the files and the places of images and masks."""
    files = settings["files"]
    is_open = AUTO in files.values()
    if not folder.is_dir() and is_open:
        raise missing_folder(settings)
    usual = zip(_PLACES, LISTED, strict=True)
    unused = [Finding(key, v, "") for key, v in usual if v is not None and settings[key] is None]
    if is_open and any(folder.glob(f"*{PARQUET}")):
        tables = file_findings(folder, settings)
        if files["test"] == AUTO:
            tables += drawn_test(with_findings(settings, tables))
        return [*tables, *unused]
    if not is_open and not _may_be_found(folder, files):
        return unused
    found = find_layout(
        folder,
        {split: AUTO if str(name).endswith(LIST) else name for split, name in files.items()},
        settings["images"],
        settings["annotations"],
        (settings["image_suffix"], settings["annotation_suffix"]),
    )
    findings = split_findings(settings, found.splits, folder.name, "masks") if is_open else []
    for key in _PLACES:
        value = getattr(found, key)
        if settings[key] is None and value is not None:
            findings.append(Finding(key, value, f"the names in {folder.name}"))
    return findings


def _may_be_found(folder: Path, files: Mapping[str, str | None]) -> bool:
    """Return whether the named splits are in other folders than the default ones."""
    tables = any(str(name).endswith(PARQUET) for name in files.values())
    usual = all((folder / name).is_dir() for name in ("images", "annotations"))
    return folder.is_dir() and not tables and not usual


def _classes(folder: Path, settings: Mapping[str, Any]) -> Finding:
    """Return the finding for the class list."""
    lists, texts = (_files(folder, names) for names in (LIST_FILES, NAME_FILES))
    if len(lists) > 1 or (len(texts) > 1 and not lists):
        shown = " and ".join(path.name for path in lists or texts)
        msg = f"{folder}: which of {shown} has the classes? remove one, or set data.class_list"
        raise DataError(msg)
    if lists:
        content = _read(str(lists[0])).as_plain()
        return _class_list(content, f"{lists[0].name} in {folder.name}")
    named = named_classes(texts[0]) if texts else None
    if settings["label_map"] is not None:
        content, why = class_list_of_map(settings["label_map"], named), "data.label_map"
    else:
        content, why = _classes_of_values(folder, settings, named)
    return _class_list(content, why if named is None else f"{named.file} in {folder.name}")


def _class_list(content: Mapping[str, Any], why: str) -> Finding:
    names = [entry["name"] for entry in content["classes"]]
    return Finding("class_list", content, why, f"{len(names)} classes: {shortened(names)}")


def _classes_of_values(
    folder: Path, settings: Mapping[str, Any], named: NamedClasses | None
) -> tuple[dict[str, Any], str]:
    """Return the class list for the values of the train masks, and where they are."""
    name = str(settings["files"]["train"])
    is_file = name.endswith((PARQUET, LIST))
    source = folder / (name if is_file else settings["annotations"].replace(SPLIT, name))
    if not source.exists():
        msg = f"data.class_list: {source} with the masks does not exist; set data.class_list"
        raise DataError(msg)
    masks = _masks(folder, source, settings)
    count = len(masks) if isinstance(masks, list) else None
    place = f"the masks in {source.relative_to(folder.parent).as_posix()}"
    values = values_of(masks, place, settings["max_pixels"], count)
    return class_list_of(values, place, named), f"the values of {place}"


def _masks(folder: Path, source: Path, settings: Mapping[str, Any]) -> Iterable[bytes | Path]:
    """Return the masks in a folder, a list of names or a Parquet file."""
    column, end = settings["annotation_column"], settings["annotation_suffix"]
    if source.suffix == PARQUET:
        rows = read_rows(source, [column], columns=[column])
        found = (content_of(row.values[column]) for row in rows if not isinstance(row, BadRow))
        return (content for content in found if content is not None)
    if source.suffix == LIST:
        images = settings["images"], settings["image_suffix"] or ""
        return [
            folder / pair.mask for pair in read_list(source, images, (settings["annotations"], end))
        ]
    files = (file for file in Listing().walk(source) if not file.fault)
    return [source / file.path for file in files if file.path.lower().endswith(end.lower())]


def _files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Return the files in a folder with one of these names, in lower or upper case."""
    if not folder.is_dir():
        return []
    return [path for path in sorted(folder.iterdir()) if path.name.lower() in names]
