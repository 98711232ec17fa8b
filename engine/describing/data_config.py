"""The config file and the command that train on described data."""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from datamodules.describing.base import Description
from engine.command_line.quoting import quoted
from engine.config.composing.composition import escaped_values
from engine.config.composing.paths import CONFIGS
from engine.config.errors import ConfigError
from run_folders.errors import one_line

_NAME = re.compile(r"[\w-]+", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*", re.ASCII)
_MOST_ANSWERS = 4  # that are listed
_CONSTANTS = ("null", "true", "false", "nan", "inf", "yes", "no", "on", "off")


def config_text(description: Description) -> str:
    """Return a config of the group `data` with the settings that were inferred or given."""
    what = description.what[0].upper() + description.what[1:]
    lines = [
        f"# {what}. Written by describe_data from {one_line(description.request.path)}.",
        f"# What is not stated here is as in data={description.template}.",
        f"defaults: [{description.template}, _self_]",
        f"folder: {_plain(_folder(description))}",
    ]
    for key, (value, why) in _settings(description).items():
        comment = f"  # {one_line(why)}" if why else ""
        if isinstance(value, Mapping):
            lines.append(f"{key}:")
            lines += [f"  {line}" for line in _block(value, why)]
        else:
            lines.append(f"{key}: {_plain(value)}{comment}")
    return "\n".join(lines) + "\n"


def check_output(path: Path, *, force: bool) -> None:
    """Raise `ConfigError` if a config file cannot have this name, or exists already.

    Args:
        path: The file.
        force: Whether to replace an existing file.
    """
    if path.suffix != ".yaml" or not _NAME.fullmatch(path.stem):
        msg = f"-o {path}: a name of letters, digits, _ and - is needed, which ends with .yaml"
        raise ConfigError(msg)
    if _is_own(path) and (CONFIGS / "data" / path.name).exists():
        msg = f"-o {path}: Thaw has a config data={path.stem} already; choose another name"
        raise ConfigError(msg)
    if path.exists() and not force:
        msg = f"-o {path}: the file exists; choose another name, or replace it with --force"
        raise ConfigError(msg)


def training_lines(
    description: Description,
    written: Path | None,
    program: str,
    default: str,
    backbone: str | None = None,
) -> list[str]:
    """Return the command that trains on the data, and what can be changed in it.

    Args:
        description: The described data.
        written: The config file that was written, if any.
        program: The beginning of the command, such as `python train.py`.
        default: The default of `model.backbone`.
        backbone: The backbone of the tokenizer that was given; None takes the default.
    """
    chosen = shlex.quote(f"model.backbone={_value(backbone or default)}")
    command = f"{_command(description, written, program)} {chosen}"
    language = " (best for the language of the texts)" if "text" in description.template else ""
    lines = [command]
    if description.bad_count and not description.skips_bad_rows:
        count = description.bad_count
        samples = (
            "1 sample cannot be used and stops"
            if count == 1
            else (f"{count:,} samples cannot be used and stop")
        )
        if any(split.bad_count > split.samples for split in description.splits):
            lines.append(f"{samples} the run: most are not usable, so check the settings first")
        else:
            lines += [
                f"{samples} the run: correct the data, or leave out what is bad:",
                f"{command} data.on_bad_rows=skip",
            ]
    origin = "" if backbone else f"{default} is the default and downloaded once; "
    lines += [f"{origin}model.backbone can be another name{language}, a folder or a finished run"]
    return lines


def answers(description: Description, command: str, *, other_kind: bool) -> list[str]:
    """Return the commands that answer the question, or how it is answered.

    Args:
        description: The description with a question.
        command: The command that was typed.
        other_kind: Whether the kind of data was found, so that `--kind` may be the answer.
    """
    kind = f"--kind, if these are not {description.what}"
    found = [
        f"{command} {shlex.quote(f'data.{key}={_value(value)}')}"
        for key, value in description.answers[:_MOST_ANSWERS]
    ]
    if not found:
        key = "answer with data.KEY=VALUE after the path"
        return [f"{key}, or with {kind}" if other_kind else key]
    return ["answer with" if len(found) == 1 else "answer with one of", *found] + (
        [f"or with {kind}"] if other_kind else []
    )


def _command(description: Description, written: Path | None, program: str) -> str:
    """Return the command without the backbone."""
    if written is not None and _is_own(written):
        return f"{program} data={written.stem}"
    words = [f"data={description.template}", f"data.folder={_value(str(description.request.path))}"]
    chosen = {**description.guessed, **description.request.given}
    words += [f"data.{key}={_value(value)}" for key, value in chosen.items()]
    return " ".join([program, *map(shlex.quote, words)])


def _is_own(path: Path) -> bool:
    """Return whether a file is in the working directory's folder of data configs."""
    return path.resolve().parent == (Path.cwd() / "configs" / "data").resolve()


def _folder(description: Description) -> str:
    """Return the dataset's folder: relative to the folder of the datasets, if it is there."""
    folder, root = description.folder.resolve(), description.request.data_dir.resolve()
    if folder != root and folder.is_relative_to(root):
        return folder.relative_to(root).as_posix()
    return str(folder)


def _settings(description: Description) -> dict[str, tuple[Any, str]]:
    """Return the settings to write, and where each was found; files are one mapping."""
    given = {**description.guessed, **description.request.given}
    found: dict[str, tuple[Any, str]] = {key: (value, "") for key, value in given.items()}
    files: dict[str, tuple[Any, str]] = {}
    for finding in description.findings:
        key, _, inner = finding.key.partition(".")
        if inner:
            files[inner] = (finding.value, finding.why)
            found[key] = (files, "")
        elif key != "folder" and (finding.why or key == "num_classes"):
            found[key] = (finding.value, finding.why)
    return found


def _block(values: Mapping[str, Any], why: str) -> Iterable[str]:
    """Yield the lines of a mapping; those of `files` have a comment each."""
    if why:
        yield f"# {one_line(why)}"
    for key, value in values.items():
        if isinstance(value, tuple):
            yield f"{key}: {_plain(value[0])}  # {one_line(value[1])}"
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{key}:"
            yield from (f"  - {_plain(item)}" for item in value)
        else:
            yield f"{key}: {_plain(value)}"


def _plain(value: Any) -> str:  # noqa: ANN401 - any value of YAML
    """Return a value as YAML on one line, without interpolations."""
    plain = escaped_values(value)
    text = yaml.safe_dump(
        plain, default_flow_style=True, width=10**6, allow_unicode=True, sort_keys=False
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _value(value: Any) -> str:  # noqa: ANN401 - any value of YAML
    """Return a value for Hydra's command line."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_value(item)}' for key, item in value.items())}}}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _CONSTANTS
        return value if plain else quoted(value)
    return str(value)
