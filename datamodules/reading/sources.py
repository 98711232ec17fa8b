"""Sources of data: the local folder, else the hub, else an error that names both options."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, TypeVar

from datamodules.reading.errors import DataError
from datamodules.reading.rows import Row
from run_folders.errors import brief


class Files(TypedDict):
    """File of each split in the dataset's folder; `auto` finds it there.

    If `val` is null, a part of train becomes val. `test` may be null if the run has no test.
    """

    train: str
    val: str | None
    test: str | None


AUTO = "auto"
AUTO_FILES = Files(train=AUTO, val=AUTO, test=AUTO)


def wanted_files(files: Files, splits: Sequence[str]) -> dict[str, str]:
    """Return the files of the splits that are read; val is left out if it has none.

    Args:
        files: File of each split.
        splits: Splits that are read.

    Raises:
        DataError: If train or test is read and has no file.
    """
    named = {split: files.get(split) for split in splits}
    for split, name in named.items():
        if split != "val" and not isinstance(name, str):
            advice = ", set data.test_fraction, or set test=false" if split == "test" else ""
            msg = f"data.files.{split}: received {name!r}; name a file{advice}"
            raise DataError(msg)
    return {split: name for split, name in named.items() if isinstance(name, str)}


def check_drawn(files: Files, test_fraction: float | None, group_column: str | None) -> None:
    """Raise `DataError` if a split that has a file is to be drawn from train.

    Args:
        files: File of each split.
        test_fraction: Fraction of train that becomes test.
        group_column: Column whose equal values stay in one split.
    """
    if test_fraction is not None and files.get("test") is not None:
        msg = f"data.test_fraction={test_fraction}, and data.files.test={files['test']}; set one"
        raise DataError(msg)
    if group_column is not None and files.get("val") is not None and test_fraction is None:
        msg = (
            f"data.group_column={group_column} keeps groups together where val or test is drawn "
            f"from train, but data.files names both; leave it out, or set data.files.val=null"
        )
        raise DataError(msg)


def existing_file(data_dir: str, folder: str, files: Files, split: str) -> Path | None:
    """Return the file or folder of a split; None if it has none, or it does not exist."""
    name = files.get(split)
    path = Path(data_dir, folder, name) if isinstance(name, str) else None
    return path.resolve() if path and path.exists() else None


HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def local_files(data_dir: str, folder: str, files: dict[str, str]) -> dict[str, Path]:
    """Find the files of all splits.

    Args:
        data_dir: The run's `paths.data_dir`.
        folder: The dataset's folder in it, or an absolute path.
        files: Split -> file name.

    Returns:
        Split -> path of a file or folder, or an empty dict if none exists.

    Raises:
        DataError: If only some exist: splits from two sources may not belong together.
    """
    root = Path(data_dir) / folder
    paths = {split: root / name for split, name in files.items()}
    missing = [path for path in paths.values() if not path.exists()]
    if len(missing) == len(paths):
        return {}
    if missing:
        names = ", ".join(path.relative_to(root).as_posix() for path in missing)
        msg = f"{root.resolve()} lacks {names}; put it there, or set data.files"
        raise DataError(msg)
    return paths


_Rows = TypeVar("_Rows")


def split_sources(
    data_dir: str,
    folder: str,
    files: Files | dict[str, str],
    hub: str | None,
    local: Callable[[Path, str], _Rows],
    remote: Callable[[str], _Rows],
) -> dict[str, tuple[str, _Rows]]:
    """Read all splits from the local folder, else from the hub.

    Args:
        data_dir: The run's `paths.data_dir`.
        folder: The dataset's folder in it.
        files: File of each split.
        hub: Name of the dataset on the hub, used if `folder` has none of the files.
        local: Called with path and split; reads a local split.
        remote: Called with the split; reads it from the hub.

    Returns:
        Split -> name of its source, and the rows.

    Raises:
        DataError: If the data is neither in the folder nor on the hub.
    """
    named = {split: name for split, name in files.items() if isinstance(name, str)}
    paths = local_files(data_dir, folder, named)
    if paths:
        return {split: (path.name, local(path, split)) for split, path in paths.items()}
    if hub is None:
        raise missing_source(data_dir, folder, named, None)
    try:
        return {split: (f"{hub}, {split}", remote(split)) for split in named}
    except (OSError, ConnectionError) as error:
        why = brief(error)
        raise missing_source(data_dir, folder, named, hub, why) from error


def missing_source(
    data_dir: str, folder: str, files: dict[str, str], hub: str | None, why: str = ""
) -> DataError:
    """Return the error for a dataset that is neither in the folder nor on the hub."""
    root = (Path(data_dir) / folder).resolve()
    on_hub = f" nor on the hub as {hub} ({why})" if hub else ""
    second = (
        "or go online once to download them"
        if hub
        else "or name the dataset on the hub with data.hub"
    )
    return DataError(
        f"no {', '.join(files.values())} in {root}{on_hub}; "
        f"put the files there (or set paths.data_dir), {second}"
    )


class HubFiles(TypedDict):
    """Parquet files of a dataset on the hub, if its dataset card does not state them.

    Attributes:
        revision: Branch, tag or commit.
        train, val, test: Pattern of each split's files; null for a missing split.
    """

    revision: str
    train: str
    val: str | None
    test: str


class HubTable(NamedTuple):
    """A split on the hub.

    Attributes:
        columns: Names of its columns.
        rows: Its rows, with class names in place of label numbers, and images as
            {"bytes": ..., "path": ...}. They are read one at a time, and once.
        class_names: Column of class labels -> names of its classes.
    """

    columns: list[str]
    rows: Iterator[Row]
    class_names: dict[str, list[str]]


def hub_table(hub: str, split: str, files: HubFiles | None = None) -> HubTable:
    """Open a split on the hub.

    Args:
        hub: Name of the dataset.
        split: train, val or test.
        files: Its files, if the dataset card does not state them.

    Raises:
        ConnectionError: If the hub cannot be reached.
        DataError: If the dataset has no such split.
    """
    import datasets  # the import takes two seconds and is only needed here

    try:
        if files is None:
            table = datasets.load_dataset(hub, split=HUB_SPLITS[split])
        else:
            patterns = {split: files[split]}  # type: ignore[literal-required]
            table = datasets.load_dataset(
                hub, split=split, revision=files["revision"], data_files=patterns
            )
    except ValueError as error:
        msg = f"{hub} on the hub has no usable '{HUB_SPLITS[split]}' split: {error}"
        raise DataError(msg) from error
    for key, feature in table.features.items():
        if isinstance(feature, datasets.Image):
            # Keep the bytes: our own decoder reports why an image cannot be used.
            table = table.cast_column(key, datasets.Image(decode=False))
    names = {
        key: f.names for key, f in table.features.items() if isinstance(f, datasets.ClassLabel)
    }
    rows = (
        Row(index, None, {key: _class_name(value, names.get(key)) for key, value in row.items()})
        for index, row in enumerate(table)
    )
    return HubTable(list(table.column_names), rows, names)


def hub_splits(hub: str) -> list[str]:
    """Return the names of the splits of a dataset on the hub.

    Raises:
        OSError, ConnectionError: If the hub cannot be reached.
        DataError: If the dataset has several configurations, or no splits.
    """
    import datasets  # the import takes two seconds and is only needed here

    try:
        return list(datasets.get_dataset_split_names(hub))
    except ValueError as error:
        msg = f"the splits of {hub} on the hub cannot be listed: {brief(error)}"
        raise DataError(msg) from error


def check_hub_columns(hub: str, columns: Sequence[str], needed: Iterable[tuple[str, str]]) -> None:
    """Raise `DataError` if a column is missing; `needed` has keys of `data` and their columns."""
    for key, column in needed:
        if column not in columns:
            msg = f"{hub} on the hub has the columns {', '.join(columns)}; set data.{key}"
            raise DataError(msg)


def _class_name(value: Any, names: list[str] | None) -> Any:  # noqa: ANN401 - any value of a table
    """Return the class name of a label; values without names and -1 (unknown) stay unchanged."""
    known = names is not None and isinstance(value, int) and 0 <= value < len(names)
    return names[value] if names is not None and known else value
