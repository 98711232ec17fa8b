"""The tables of a dataset: which one belongs to which split."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from datamodules.inferring.findings import Finding
from datamodules.inferring.splits import TEST_FRACTION, dataset_folder, only_split_in
from datamodules.reading.errors import DataError
from datamodules.reading.foreign import advice_for_suffix
from datamodules.reading.sources import AUTO, HUB_SPLITS, hub_splits
from datamodules.reading.tables import SUFFIXES
from run_folders.errors import shortened


def located(settings: Mapping[str, Any]) -> tuple[Path, list[Finding]]:
    """Return the dataset's folder, and the findings for `folder`.

    If `folder` is a table, its folder takes its place, and the table is train.

    Args:
        settings: Arguments of the datamodule.

    Raises:
        DataError: If it is a table, and another one is named as train.
    """
    path, findings = dataset_folder(settings["data_dir"], settings["folder"])
    if not path.is_file():
        return path, findings
    files = settings["files"]
    if files["train"] != AUTO:
        msg = (
            f"data.folder={settings['folder']} is a file, and data.files.train names "
            f"{files['train']}; leave out one of the two"
        )
        raise DataError(msg)
    inside = Path(settings["folder"]).parent.as_posix()
    folder = str(path.parent) if findings else inside
    return path.parent, [
        Finding("folder", folder, f"the folder of {path.name}"),
        Finding("files.train", path.name, "data.folder"),
        *(
            Finding(f"files.{split}", None, "data.folder is a single table: drawn from train")
            for split in ("val", "test")
            if files[split] == AUTO
        ),
    ]


def tables_of(folder: Path) -> dict[str, list[str]]:
    """Return the tables of each split in a folder, under "" those that name none.

    If the folder itself has no table, those in its subfolders are returned. The name of a file
    decides, else that of its subfolder: `moods_train.csv`, `train-00000-of-00001.parquet` and
    `train/texts.csv` are tables of train.
    """
    found: dict[str, list[str]] = {}
    for pattern in ("*", "*/*"):
        for path in sorted(folder.glob(pattern)):
            if path.suffix.lower() in SUFFIXES and path.name[0] not in ".~" and path.is_file():
                name = path.relative_to(folder)
                split = only_split_in(path.stem) or only_split_in(name.parent.name)
                found.setdefault(split, []).append(name.as_posix())
        if found:
            break
    return found


def file_findings(folder: Path, settings: Mapping[str, Any]) -> list[Finding]:
    """Return the table of each split whose file is `auto`, and the part that is drawn as test.

    Args:
        folder: The dataset's folder.
        settings: Arguments of the datamodule.

    Raises:
        DataError: If there is no table, or several may be the one of a split.
    """
    files = settings["files"]
    if AUTO not in files.values():
        return []
    tables = tables_of(folder)
    if not tables:
        raise _no_table(folder, settings)
    named = set(files.values())
    findings = []
    for split in ("train", "val", "test"):
        if files[split] != AUTO:
            continue
        candidates = [name for name in tables.get(split, ()) if name not in named]
        why = f"the files in {folder.name}"
        if not candidates and split == "train":
            candidates = [name for name in tables.get("", ()) if name not in named]
            why = f"the only {'other ' if len(tables) > 1 else ''}table in {folder.name}"
        if len(candidates) > 1 or (not candidates and split == "train"):
            raise _which(split, candidates or sorted(chain(*tables.values())), folder)
        if not candidates:
            why = f"no {split} table in {folder.name}: drawn from train"
        findings.append(Finding(f"files.{split}", candidates[0] if candidates else None, why))
    return findings


def hub_findings(settings: Mapping[str, Any]) -> list[Finding]:
    """Return the hub's split for each split whose file is `auto`.

    Raises:
        OSError: If the hub cannot be reached.
    """
    files, hub = settings["files"], settings["hub"]
    if AUTO not in files.values():
        return []
    there = hub_splits(hub)
    findings = []
    for split, name in HUB_SPLITS.items():
        if files[split] == AUTO:
            found = name in there or split == "train"  # where train is missing, its reader says so
            why = f"the splits of {hub}" if found else f"no {name} split of {hub}: drawn from train"
            findings.append(Finding(f"files.{split}", name if found else None, why))
    return findings


def drawn_test(settings: Mapping[str, Any]) -> list[Finding]:
    """Return the finding for `test_fraction` that follows from the test split that was found.

    Args:
        settings: Arguments of the datamodule; `files.test` is the table that was found, or None.

    Raises:
        DataError: If there is one, and `test_fraction` is set.
    """
    fraction, test = settings["test_fraction"], settings["files"]["test"]
    if test is None:
        why = "no test split: the usual part of train"
        return [] if fraction is not None else [Finding("test_fraction", TEST_FRACTION, why)]
    if fraction is not None:
        msg = (
            f"data.test_fraction={fraction}, and the data has the test split {test}; set "
            f"data.files.test=null to draw another one, or leave data.test_fraction out"
        )
        raise DataError(msg)
    return []


def _no_table(folder: Path, settings: Mapping[str, Any]) -> DataError:
    """Return the error for a dataset whose folder is missing or has no table."""
    kinds = ", ".join(SUFFIXES)
    hub = "or name a dataset on the hub in data.hub"
    if not folder.exists():
        places = f"{Path(settings['data_dir']).resolve()} nor in {Path.cwd()}"
        return DataError(
            f"no folder or table {settings['folder']!r} in {places}; put it there, or give its "
            f"path in data.folder (tables: {kinds}), {hub}"
        )
    others = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    has = f"it has {shortened(path.name for path in others)}" if others else "it is empty"
    advice = next(filter(None, (advice_for_suffix(path) for path in others if path.is_file())), "")
    return DataError(
        f"no table ({kinds}) in {folder.resolve()}; {has}{advice or f'; put one there, {hub}'}"
    )


def _which(split: str, names: Sequence[str], folder: Path) -> DataError:
    """Return the question which of several tables is the one of a split."""
    return DataError(
        f"{folder}: which table is {split}? set data.files.{split} to one of {shortened(names)}"
    )
