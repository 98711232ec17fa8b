"""Where data comes from: the local folder first, then the hub, else one error that says how to provide it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from datamodules.reading.errors import DataError
from datamodules.reading.tables import Row
from run_folders.errors import brief


class Files(TypedDict):
    """File of each split, in the dataset's folder; `val` null means a part of train."""

    train: str
    val: str | None
    test: str


_HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}


def local_files(data_dir: str, folder: str, files: dict[str, str]) -> dict[str, Path]:
    """Find the files of all splits.

    Args:
        data_dir: The run's `paths.data_dir`.
        folder: The dataset's folder in it, or an absolute one.
        files: Split -> file name.

    Returns:
        Split -> path of a file or folder, or an empty dict where not one is there.

    Raises:
        DataError: If only some are there: splits from two places are not one dataset.
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
    """Find every split locally, else on the hub.

    Args:
        data_dir: The run's `paths.data_dir`.
        folder: The dataset's folder in it.
        files: File of each split.
        hub: Name of the dataset on the hub, asked where the folder has none of the files.
        local: Reads a path of a split.
        remote: Reads a split from the hub.

    Returns:
        Split -> name of its source, and what was read.

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
    """The one error of a dataset that is nowhere."""
    root = (Path(data_dir) / folder).resolve()
    on_hub = f" nor on the hub as {hub} ({why})" if hub else ""
    second = (
        "or go online once, so that the hub can be asked"
        if hub
        else "or name the dataset on the hub with data.hub"
    )
    return DataError(
        f"no {', '.join(files.values())} in {root}{on_hub}; put the files there (paths.data_dir says where to look), {second}"
    )


class HubFiles(TypedDict):
    """Where a dataset's Parquet files are on the hub, if not where its own description says.

    Attributes:
        revision: Branch, tag or commit.
        train, val, test: Pattern of each split's files; null for a split that it lacks.
    """

    revision: str
    train: str
    val: str | None
    test: str


def hub_rows(hub: str, split: str, files: HubFiles | None = None) -> Iterator[Row]:
    """Read a split from the hub; class labels become their names, images {"bytes": ..., "path": ...}.

    Args:
        hub: Name of the dataset.
        split: train, val or test.
        files: Where its files are, if not where its own description says.

    Yields:
        Its rows.

    Raises:
        ConnectionError: If the hub does not answer.
        DataError: If it has no such split.
    """
    import datasets  # two seconds to import, and only needed here

    try:
        if files is None:
            table = datasets.load_dataset(hub, split=_HUB_SPLITS[split])
        else:
            patterns = {split: files[split]}  # type: ignore[literal-required]
            table = datasets.load_dataset(
                hub, split=split, revision=files["revision"], data_files=patterns
            )
    except ValueError as error:
        msg = f"{hub} on the hub has no usable '{_HUB_SPLITS[split]}' split: {error}"
        raise DataError(msg) from error
    for key, feature in table.features.items():
        if isinstance(
            feature, datasets.Image
        ):  # its bytes: we decode, and say what is wrong with them
            table = table.cast_column(key, datasets.Image(decode=False))
    names = {
        key: f.names for key, f in table.features.items() if isinstance(f, datasets.ClassLabel)
    }
    for index, values in enumerate(table):
        yield Row(
            index, None, {key: _named(value, names.get(key)) for key, value in values.items()}
        )


def check_hub_columns(hub: str, rows: Sequence[Row], needed: Mapping[str, str]) -> None:
    """Raise `DataError` where the hub's rows lack a column; `needed` maps keys of `data` to columns."""
    columns = list(rows[0].values) if rows else []
    for key, column in needed.items():
        if column not in columns:
            msg = f"{hub} on the hub has the columns {', '.join(columns)}; set data.{key}"
            raise DataError(msg)


def _named(value: Any, names: list[str] | None) -> Any:  # noqa: ANN401 - any value of a table
    """A class's name; the hub writes -1 where a label is not known, which is no class."""
    known = names is not None and isinstance(value, int) and 0 <= value < len(names)
    return names[value] if names is not None and known else value
