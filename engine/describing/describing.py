"""Describe a folder or table: print what is in it, and write the config that reads it."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from omegaconf import DictConfig, OmegaConf

from datamodules.describing.base import Request
from datamodules.describing.kinds import KINDS, kind_of
from datamodules.describing.printing import print_description, print_lines
from datamodules.reading.errors import DataError
from datamodules.texts.tokenizing import load_tokenizer
from engine.config.composing.composition import compose_config
from engine.config.errors import ConfigError
from engine.describing.data_config import answers, check_output, config_text, training_lines
from run_folders.errors import nearest
from run_folders.files import write_text

if TYPE_CHECKING:
    from rich.console import Console

_PREFIX = "data."
_DATA_DIR = Path("data")  # as paths.data_dir
_OF_THE_PATH = ("folder", "data_dir")  # settings that the path decides
_READERS = "datamodules"  # the package whose messages are part of the description
_PROGRESS = "datamodules.reading.progress"


def describe_data(
    path: Path,
    settings: Sequence[str],
    kind: str | None,
    output: Path | None,
    tokenizer: str | None,
    max_length: int,
    limit: int,
    program: str,
    command: str,
    console: "Console",
    *,
    force: bool,
) -> None:
    """Print what a folder or table has, the settings that read it, and the command that trains.

    Args:
        path: The folder or table.
        settings: Settings of `data` that the user gave, such as `data.text_column=tweet`.
        kind: Option of the config group `data` that reads it; None finds it.
        output: The config file to write; None prints it.
        tokenizer: Hub name or folder of the tokenizer that counts tokens; None counts none.
        max_length: Number of tokens that training reads.
        limit: Largest number of images that are opened in each split.
        program: The command that trains, such as `python train.py`.
        command: The command that was typed.
        console: Prints the description.
        force: Whether to replace an existing config file.

    Raises:
        DataError: If the data cannot be read, or does not show its kind.
        ConfigError: If a setting is unknown, or the config cannot be written.
    """
    if not path.exists() and (_DATA_DIR / path).exists():
        path = _DATA_DIR / path
    _check(path, kind)
    if output is not None:
        check_output(output, force=force)
    kind_is_open = kind is None
    with _messages() as remarks:
        kind = kind or kind_of(path)
        template = compose_config([f"data={kind}"])
        given = _given(settings, kind, template)
        max_length = given.get("max_length", max_length)
        _check_numbers(max_length, limit)
        request = Request(
            path,
            given,
            _DATA_DIR,
            load_tokenizer(tokenizer) if tokenizer else None,
            max_length,
            limit,
        )
        description = KINDS[kind](request)
        sections = description.sections()
    print_description(description, sections, remarks, console)
    if description.question:
        if output is not None:
            msg = f"-o {output}: not written, as a setting is open: {description.question}"
            raise ConfigError(msg)
        lines = answers(description, command, other_kind=kind_is_open)
        print_lines([description.question, *lines], "Not clear", console)
        return
    text = config_text(description)
    if output is not None:
        write_text(output, text)
    title = "Config (not written; -o FILE writes it)" if output is None else f"Written to {output}"
    print_lines(text.splitlines(), title, console)
    default = str(template.model.backbone)
    lines = training_lines(description, output, program, default, _backbone_with(tokenizer))
    print_lines(lines, "To train", console)


def _backbone_with(tokenizer: str | None) -> str | None:
    """Return the backbone that has this tokenizer; None if it is a folder without a network."""
    if tokenizer is None or (
        Path(tokenizer).exists() and not Path(tokenizer, "config.json").is_file()
    ):
        return None
    return tokenizer


def _check(path: Path, kind: str | None) -> None:
    if not path.exists():
        msg = f"{path}: no such file or folder in {Path.cwd()} or in its folder {_DATA_DIR}"
        raise DataError(msg)
    if kind is not None and kind not in KINDS:
        msg = f"--kind: received {kind!r}; {nearest(kind, KINDS)}"
        raise ConfigError(msg)


def _check_numbers(max_length: object, limit: int) -> None:
    for option, value in (("--max-length", max_length), ("--limit", limit)):
        if not isinstance(value, int) or value < 1:
            msg = f"{option}: received {value}; give 1 or more"
            raise ConfigError(msg)


def _given(settings: Sequence[str], kind: str, template: DictConfig) -> dict[str, Any]:
    """Return the settings that the user gave, with their values.

    Args:
        settings: The words of the command line.
        kind: Option of the config group `data`.
        template: The config with this option; every key of its node `data` can be given.
    """
    nodes: Any = OmegaConf.to_container(template.data, resolve=False)
    known = [key for key in nodes if not key.startswith("_") and key not in _OF_THE_PATH]
    given: dict[str, Any] = {}
    for word in settings:
        key, equals, text = word.partition("=")
        key = key.removeprefix(_PREFIX)
        name, _, inner = key.partition(".")
        if not equals or name not in known or (inner and not isinstance(nodes[name], dict)):
            msg = f"{word}: no setting of data={kind}; give data.KEY=VALUE; {nearest(name, known)}"
            raise ConfigError(msg)
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            msg = f"{word}: the value is no YAML; put it into quotes"
            raise ConfigError(msg) from error
        if inner:
            before = given.get(name, KINDS[kind].open_settings.get(name, {}))
            given[name] = {**before, inner: value}
        else:
            given[name] = value
    return given


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Collect what the readers log, such as files that were passed over, in place of showing it."""
    found: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name != _PROGRESS:
                found.append(record.getMessage())

    logger, collector = logging.getLogger(_READERS), Collector()
    shown, level = logger.propagate, logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield found
    finally:
        logger.removeHandler(collector)
        logger.propagate, logger.level = shown, level
