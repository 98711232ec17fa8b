"""What the tables of a labelled dataset decide: files, columns, classes, the part for the test."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datamodules.inferring.classes import checked_classes, count_labels
from datamodules.inferring.columns import CONTENT_COLUMN, Content, label_column
from datamodules.inferring.findings import Finding, with_findings
from datamodules.inferring.table_source import HubSplit, LocalTable
from datamodules.inferring.tables import (
    drawn_test,
    file_findings,
    hub_findings,
    located,
    tables_of,
)
from datamodules.reading.errors import DataError
from datamodules.reading.formats import TableFormat
from datamodules.reading.labels import label_key
from datamodules.reading.sources import AUTO, HUB_SPLITS, local_files, missing_source
from run_folders.errors import brief, shortened

Table = LocalTable | HubSplit


def infer_tables(
    settings: Mapping[str, Any], content: Content, *, has_classes: bool, own_hub: bool = False
) -> list[Finding]:
    """Find the settings of labelled samples in tables that are open.

    Args:
        settings: All arguments of the datamodule.
        content: The key of the column with the samples.
        has_classes: Whether the labels are classes.
        own_hub: Whether own code reads the dataset on the hub, so that its columns say nothing.

    Raises:
        DataError: If the data is missing, or does not decide a setting.
    """
    files = {split: settings["files"].get(split) for split in HUB_SPLITS}
    settings = {**settings, "files": files}
    folder, found = located(settings)
    state = _State(settings, content, found)
    needs_classes = has_classes and not settings["classes"]
    columns = (settings[content], settings["label_column"])
    if AUTO in files.values() or needs_classes or None in columns:
        on_hub = _on_hub(folder, state.settings)
        try:
            tables = _hub_tables(state) if on_hub else _local_tables(folder, state)
            if on_hub and own_hub:
                state.add(*settings_of_own_code(state.settings, content))
            else:
                _infer_from(tables, state, needs_classes=needs_classes)
        except OSError as error:
            if not on_hub:
                raise
            raise _missing(state, brief(error)) from error
    if files["test"] == AUTO:
        state.add(*drawn_test(state.settings))
    state.add(*number_of_classes(state.settings))
    return list(state.findings.values())


def settings_of_own_code(settings: Mapping[str, Any], content: Content) -> list[Finding]:
    """Return the settings that are open where own code reads the data: the usual columns.

    Args:
        settings: All arguments of the datamodule.
        content: The key of the column with the samples.
    """
    usual = {content: content.removesuffix("_column"), "label_column": "label"}
    columns = [Finding(key, name, "") for key, name in usual.items() if settings[key] is None]
    return [*columns, *number_of_classes(settings)]


def number_of_classes(settings: Mapping[str, Any]) -> list[Finding]:
    """Return the finding for `num_classes`, if it is open and there are classes."""
    if settings["num_classes"] is not None or not settings["classes"]:
        return []
    return [Finding("num_classes", len(settings["classes"]), "")]


class _State:
    """The settings, completed step by step.

    Attributes:
        given: The settings at the beginning.
        content: The key of the column with the samples.
        settings: The settings with what was inferred so far.
        findings: What was inferred so far, by key.
    """

    def __init__(
        self, settings: Mapping[str, Any], content: Content, findings: Iterable[Finding]
    ) -> None:
        self.given, self.content, self.settings = settings, content, dict(settings)
        self.findings: dict[str, Finding] = {}
        self.add(*findings)

    def add(self, *findings: Finding) -> None:
        """Set what was inferred; a later finding replaces an earlier one."""
        self.findings |= {finding.key: finding for finding in findings}
        self.settings = with_findings(self.settings, findings)

    @property
    def files(self) -> dict[str, str]:
        """File of each split that has one."""
        files = self.settings["files"]
        return {split: name for split, name in files.items() if name not in (None, AUTO)}

    @property
    def label_columns(self) -> list[str]:
        """The columns of the labels, as far as they are known."""
        column = self.settings["label_column"]
        return [column] if isinstance(column, str) else list(column or ())

    @property
    def columns(self) -> list[str]:
        """The columns of the samples and of the labels, as far as they are known."""
        return [*filter(None, [self.settings[self.content]]), *self.label_columns]


def _on_hub(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Return whether the hub has the dataset, and the folder none of its files."""
    names = [name for name in settings["files"].values() if name is not None]
    there = AUTO in names and tables_of(folder)
    return settings["hub"] is not None and not (
        there or any((folder / name).exists() for name in names if name != AUTO)
    )


def _missing(state: _State, why: str = "") -> DataError:
    settings = state.settings
    names = state.files or {"train": "table"}
    return missing_source(settings["data_dir"], settings["folder"], names, settings["hub"], why)


def _hub_tables(state: _State) -> dict[str, Table]:
    state.add(*hub_findings(state.settings))
    return {split: HubSplit(state.settings["hub"], split) for split in state.files}


def _local_tables(folder: Path, state: _State) -> dict[str, Table]:
    """Return the table of each split; one that is not read need not exist."""
    state.add(*file_findings(folder, state.settings))
    settings = state.settings
    table_format = TableFormat(*(settings[key] for key in ("encoding", "delimiter", "quoting")))
    paths = {split: folder / name for split, name in state.files.items()}
    if not paths["train"].exists():
        local_files(settings["data_dir"], settings["folder"], state.files)
        raise _missing(state)
    return {split: LocalTable(path, table_format) for split, path in paths.items() if path.exists()}


def _infer_from(tables: dict[str, Table], state: _State, *, needs_classes: bool) -> None:
    """Find the columns, the test split and the classes."""
    _infer_columns(tables["train"], state)
    if state.given["files"]["test"] == AUTO:
        test = tables.get("test")
        if test and not _has_labels(test, state):
            del tables["test"]
            why = f"{test.name} has no labels, so it is no test split"
            state.add(Finding("files.test", None, why))
    if needs_classes:
        state.add(_classes(tables, state))


def _infer_columns(table: Table, state: _State) -> None:
    settings, content = state.settings, state.content
    if None not in (settings[content], settings["label_column"]):
        return
    others = [settings.get(key) for key in ("id_column", "group_column")]
    known = [*state.columns, *filter(None, others)]
    columns = table.columns(known)
    if not columns:
        msg = f"{table.name} has no rows; add rows to it"
        raise DataError(msg)
    if settings["label_column"] is None:
        names = table.class_names()
        separator = settings["label_separator"]
        if len(names) == 1:
            name, why = next(iter(names)), "its class labels"
        else:
            name, why = label_column(columns, known, table.name, separator)
        state.add(Finding("label_column", name, f"the columns of {table.name}: {why}"))
        known = [*known, name]
    if settings[content] is None:
        name, why = CONTENT_COLUMN[content](columns, known, table.name)
        state.add(Finding(content, name, f"the columns of {table.name}: {why}"))


def _has_labels(table: Table, state: _State) -> bool:
    """Return whether a table has the columns of the labels, with a label in one of the rows."""
    columns = {column.name: column for column in table.columns()}
    return all(name in columns and columns[name].values for name in state.label_columns)


def _classes(tables: Mapping[str, Table], state: _State) -> Finding:
    """Return the classes: names of columns, values of `label_map`, or the labels of all splits."""
    settings, train = state.settings, tables["train"]
    if not isinstance(settings["label_column"], str):
        return Finding("classes", state.label_columns, "data.label_column")
    if settings["label_map"]:
        names = list(dict.fromkeys(settings["label_map"].values()))
        return Finding("classes", names, "data.label_map")
    known = train.class_names().get(settings["label_column"])
    if known:
        return Finding("classes", known, f"the class labels of {train.name}")
    separator = settings["label_separator"]
    counts = {split: _counts(table, state, separator) for split, table in tables.items()}
    place = f"column '{settings['label_column']}' of {train.name}"
    found, keys = Counter(counts["train"]), set(map(label_key, counts["train"]))
    more = {}
    for split, table in tables.items():
        extra = [name for name in counts[split] if label_key(name) not in keys]
        if len(extra) == len(counts[split]) and extra:
            drawn = " data.test_fraction=0.1" if split == "test" else ""
            msg = (
                f"{table.name} has no label of {train.name} but {shortened(extra)}; correct it, or "
                f"set data.files.{split}=null{drawn} to draw {split} from train"
            )
            raise DataError(msg)
        if extra:
            more[table.name] = f"; only {table.name} has {shortened(extra)}"
        found.update({name: counts[split][name] for name in extra})
    number = settings["num_classes"]
    classes = checked_classes(found, place, number, several=separator is not None)
    rare = [name for name in classes if found[name] == 1]
    if rare:  # perhaps a typing error
        more[""] = f"; one sample only: {shortened(rare)}"
    return Finding("classes", classes, place + "".join(more.values()))


def _counts(table: Table, state: _State, separator: str | None) -> Counter[str]:
    """Return the number of samples of each label of a table."""
    column = state.settings["label_column"]
    values = table.values(state.columns, column)
    if separator is None:
        return count_labels(_single(values, f"column '{column}' of {table.name}"))
    parts = (
        part
        for value in values
        for part in (value if isinstance(value, list) else str(value or "").split(separator))
    )
    return count_labels(parts)


def _single(values: Iterable[Any], place: str) -> Iterator[Any]:
    """Yield the values; raise `DataError` if one is not a single label."""
    for value in values:
        if isinstance(value, list | dict):
            msg = (
                f"{place} holds {value!r:.60}, not one label; name another column in "
                f"data.label_column, or for a list of labels set data.label_separator=';'"
            )
            raise DataError(msg)
        yield value
