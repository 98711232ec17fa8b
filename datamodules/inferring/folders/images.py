"""Settings of labelled images in class folders or lists: files and classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from datamodules.images.listing import IMAGE_SUFFIXES, Listing
from datamodules.images.places import LIST, SAMPLE, place_of, read_list
from datamodules.inferring.classes import checked_classes
from datamodules.inferring.findings import Finding, with_findings
from datamodules.inferring.labelled import infer_tables, settings_of_own_code
from datamodules.inferring.splits import SPLIT_NAMES, split_of, split_of_folder
from datamodules.inferring.table_source import LocalTable
from datamodules.inferring.tables import drawn_test, located, tables_of
from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from datamodules.reading.sources import AUTO
from datamodules.reading.tables import SUFFIXES as TABLES
from datamodules.reading.tables import TEXT_SUFFIXES
from run_folders.errors import shortened


def infer_images(
    settings: Mapping[str, Any], *, has_classes: bool = True, own_hub: bool = False
) -> list[Finding]:
    """Find files, columns and classes of labelled images.

    Args:
        settings: All arguments of `ImageDataModule`; None or `auto` where open.
        has_classes: Whether the labels are classes.
        own_hub: Whether own code reads the dataset on the hub.

    Raises:
        DataError: If the data is missing, or does not decide a setting.
    """
    found = infer_folders(settings, has_classes=has_classes)
    if found is not None:
        settled = with_findings(settings, found)
        return [*found, *settings_of_own_code(settled, "image_column")]
    found = infer_tables(settings, "image_column", has_classes=has_classes, own_hub=own_hub)
    check_paths(settings, found)
    return found


def infer_folders(settings: Mapping[str, Any], *, has_classes: bool) -> list[Finding] | None:
    """Find files and classes of images in class folders or lists.

    Args:
        settings: All arguments of `ImageDataModule`; None or `auto` where open.
        has_classes: Whether the labels are classes.

    Returns:
        The findings; None if the images are in tables or on the hub.

    Raises:
        DataError: If the folder does not decide a setting.
    """
    files = {split: settings["files"].get(split) for split in SPLIT_NAMES}
    settings = {**settings, "files": files}
    folder, findings = located(settings)
    settled = with_findings(settings, findings)
    train, path = settled["files"]["train"], folder / settled["files"]["train"]
    if AUTO in settled["files"].values() and _may_have_images(folder, settled):
        found = find_splits(folder)
        findings += split_findings(settled, found, folder.name, "classes")
        train = found.get("train", train) if train == AUTO else train
        path = folder / train
    if train == AUTO or (path.is_file() and path.suffix.lower() != LIST):
        return None
    needs_classes = has_classes and settings["classes"] is None
    if not path.exists():
        is_table = path.suffix.lower() in TABLES
        return None if needs_classes or is_table or settings["hub"] is not None else findings
    if needs_classes:
        findings.append(_classes(path, settings["num_classes"]))
    return findings


def check_paths(settings: Mapping[str, Any], findings: Sequence[Finding]) -> None:
    """Raise `DataError` if the image column that was found in a text table names no files.

    Args:
        settings: All arguments of `ImageDataModule`.
        findings: What was found in its tables.
    """
    settled = with_findings(settings, findings)
    column = next((found.value for found in findings if found.key == "image_column"), None)
    root = located(settings)[0]
    path = root / settled["files"]["train"]
    if column is None or path.suffix.lower() not in TEXT_SUFFIXES or not path.is_file():
        return
    table_format = TableFormat(*(settings[key] for key in ("encoding", "delimiter", "quoting")))
    columns = LocalTable(path, table_format).columns([column])
    values = next(found.values for found in columns if found.name == column)
    names = [value for value in values if isinstance(value, str)][:SAMPLE]
    if names and place_of(names, path.parent, "train", root) is None:
        msg = (
            f"{path}: column '{column}' looks like the images, but there is no file {names[0]} "
            f"beside the table or in a folder beside it; put the images there, or set "
            f"data.image_column"
        )
        raise DataError(msg)


def _may_have_images(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether open files are looked for among the class folders and lists of a folder.

    These have one label for each image.
    """
    if settings["label_separator"] is not None or isinstance(settings["label_column"], list):
        return False
    if not folder.is_dir() or (settings["hub"] is not None and not any(folder.iterdir())):
        return False
    return Path(settings["files"]["train"]).suffix.lower() not in TABLES


def find_splits(folder: Path) -> dict[str, str]:
    """Return split -> its folder or list, relative to the folder; empty if there are tables.

    `.` stands for the folder itself.

    Raises:
        DataError: If there are neither class folders nor lists nor tables.
    """
    names = [name for name in Listing().top(folder)[0] if _has_images(folder / name)]
    found = _split_folders(folder, names)
    if "train" in found:
        return found
    lists = find_lists(folder)
    if lists:
        return lists
    classes, beside = [name for name in names if not split_of_folder(name)], tables_of(folder)
    # The images of a class may all be in folders in the class folder, if nothing else names them.
    direct = [name for name in classes if _has_images(folder / name, deep=not beside)]
    if len(direct) > 1 and found:
        shown = next(iter(found.values()))
        msg = f"{folder} has the folder {shown} and none for train; set data.files"
        raise DataError(msg)
    if len(direct) > 1:
        return {"train": "."}
    if beside:
        return {}
    if len(names) == 1 and Listing().top(folder / names[0])[0]:
        inside = find_splits(folder / names[0])
        return {split: str(PurePosixPath(names[0]) / name) for split, name in inside.items()}
    has = shortened(sorted(path.name for path in folder.iterdir())) or "nothing"
    msg = (
        f"{folder}: which class has each image? put the images of each class into a folder with "
        f"its name, or list them in a table with the columns image and label; it has {has}"
    )
    raise DataError(msg)


def _split_folders(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return split -> the folder of its class folders.

    Args:
        folder: The dataset's folder.
        names: The folders in it.

    Raises:
        DataError: If two folders may be the same split.
    """
    found: dict[str, str] = {}
    for name in names:
        split = split_of_folder(name)
        if split and Listing().top(folder / name)[0]:
            if split in found:
                msg = f"{folder}: is {found[split]} or {name} {split}? set data.files.{split}"
                raise DataError(msg)
            found[split] = name
    return found


def find_lists(folder: Path) -> dict[str, str]:
    """Return split -> its list of images, relative to the folder; empty if there are none.

    Raises:
        DataError: If several lists may be the same split.
    """
    found: dict[str, str] = {}
    for path in sorted([*folder.glob(f"*{LIST}"), *folder.glob(f"*/*{LIST}")]):
        split, name = split_of(path.stem), path.relative_to(folder).as_posix()
        first = [entry.path for entry in islice(read_list(path), SAMPLE)] if split else []
        if split is None or not first or place_of(first, path.parent, split, folder) is None:
            continue
        if split in found:
            msg = f"{folder}: is {found[split]} or {name} {split}? set data.files.{split}"
            raise DataError(msg)
        found[split] = name
    return found if "train" in found else {}


def split_findings(
    settings: Mapping[str, Any], found: Mapping[str, str], place: str, what: str
) -> list[Finding]:
    """Return the findings for the splits whose files are open, and for `test_fraction`.

    Args:
        settings: All arguments of the datamodule.
        found: Split -> its file, folder or name; empty if other code finds them.
        place: Name of the dataset's folder.
        what: What each split has, such as masks.

    Raises:
        DataError: If there is a test split and `test_fraction` is set.
    """
    findings = []
    for split in (split for split in SPLIT_NAMES if found and settings["files"][split] == AUTO):
        name = found.get(split)
        missing = f"no {split} with {what} in {place}: drawn from train"
        why = f"the names in {place}" if name else missing
        findings.append(Finding(f"files.{split}", name, why))
    if found and settings["files"]["test"] == AUTO:
        findings += drawn_test(with_findings(settings, findings))
    return findings


def missing_folder(settings: Mapping[str, Any]) -> DataError:
    """Return the error for a dataset without a folder."""
    places = f"{Path(settings['data_dir']).resolve()} nor in {Path.cwd()}"
    return DataError(
        f"no folder {settings['folder']!r} in {places}; put it there, give its path in "
        f"data.folder, or name a dataset on the hub in data.hub and its splits in data.files"
    )


def _classes(path: Path, num_classes: int | None) -> Finding:
    """Return the finding for the classes in a list or in class folders."""
    if path.suffix.lower() == LIST:
        counts = Counter(entry.label for entry in read_list(path) if entry.label)
        why = f"the lines of {path.name}"
    else:
        names, why = Listing().top(path)[0], f"the folders in {path.name}"
        if len(names) < 2:  # noqa: PLR2004
            msg = (
                f"{path}: has it a folder of images for each class? found: "
                f"{shortened(names) or 'no folder'}; set data.files, or data.classes"
            )
            raise DataError(msg)
        # Two images of a class are enough to see that the folders are classes.
        first = {name: islice(Listing().walk(path / name), 2) for name in names}
        counts = Counter({normalize("NFC", name): len([*files]) for name, files in first.items()})
    return Finding("classes", checked_classes(counts, str(path), num_classes), why)


def _has_images(folder: Path, *, deep: bool = True) -> bool:
    """Return whether a folder has an image; `deep`: or one of the folders in it."""
    files = Listing().walk(folder) if deep else Listing().top(folder)[1]
    return any(file.path.lower().endswith(IMAGE_SUFFIXES) for file in files)
