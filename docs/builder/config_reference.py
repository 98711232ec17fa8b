"""Writes the reference of the config: each key with its default, type, range and meaning.

Keys, defaults and meanings come from the YAML files and their comments. Types, ranges, further keys
and the meanings that a file does not state come from the signatures and docstrings of the classes.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from docs.builder.arguments import Argument, arguments_of
from docs.builder.yaml_comments import ConfigFile, Key, read_config
from engine.config.errors import ConfigError
from engine.config.places import injected_into, place_of, resolve_target

# Groups whose files state what differs from other files; the page shows the files.
_SHOWN_AS_FILES = ("debug", "experiment", "sweep")
_ABOUT = {
    "callbacks": "Callbacks of the run, each below `callbacks`.",
    "data": "The dataset. An own dataset is a file that starts from `text`, `image`, "
    "`segmentation`, `multilabel_text` or `multilabel_image`.",
    "debug": "Settings for a quick check.",
    "experiment": "Named experiments. A file states only what differs from the defaults.",
    "head": "The layers on top of the backbone, at `model.head`.",
    "hydra": "Settings of Hydra itself.",
    "logger": "Dashboards, each below `logger`. `'logger=[wandb,tensorboard]'` chooses two.",
    "loss": "The loss, at `model.loss`.",
    "model": "The task with its network.",
    "optimizer": "The optimizer, at `model.optimizer`.",
    "paths": "Folders of data and runs.",
    "schedule": "The schedule of the learning rate, at `model.schedule`.",
    "sweep": "Search spaces for `-m` with `hydra/sweeper=optuna`.",
    "trainer": "Lightning's trainer: devices, precision, length of training.",
}


def write_pages(configs: Path, folder: Path) -> list[Path]:
    """Write a page for each config group, and one for the top of the config.

    Args:
        configs: Folder of the YAML files.
        folder: Folder of the pages.

    Returns:
        The pages.
    """
    groups = sorted({path.parent.name for path in configs.glob("*/*.yaml")})
    texts = {"index": "\n".join(_top(configs, groups))}
    texts |= {group: "\n".join(_group(configs / group)) for group in groups}
    folder.mkdir(parents=True, exist_ok=True)
    pages = []
    for name, text in texts.items():
        pages.append(folder / f"{name}.md")
        pages[-1].write_text(text + "\n", encoding="utf-8")
    return pages


def _top(configs: Path, groups: list[str]) -> Iterator[str]:
    file = read_config(configs / "train.yaml", "")
    yield "# Config keys\n"
    yield (
        "`python train.py KEY=VALUE` sets a key, and `GROUP=OPTION` chooses a file of a group. "
        "`+KEY=VALUE` adds a key that the files do not have. "
        "`python train.py --cfg job` prints all keys with their values.\n"
    )
    yield "## Groups\n\n| group | options |\n|---|---|"
    for group in groups:
        options = sorted(path.stem for path in (configs / group).glob("*.yaml"))
        yield f"| [`{group}`]({group}.md) | {', '.join(f'`{option}`' for option in options)} |"
    yield "\n## Keys of the run\n"
    yield from _keys(file.keys, {}, further=False)


def _group(folder: Path) -> Iterator[str]:
    group = folder.name
    yield f"# {group}\n\n{_ABOUT.get(group, '')}\n"
    files = {path: read_config(path, group) for path in sorted(folder.glob("*.yaml"))}
    bases = {name for file in files.values() for name in file.starts_from}
    # The files that others start from come first.
    for path, file in sorted(files.items(), key=lambda item: item[0].stem not in bases):
        yield f"## {group}={path.stem}\n"
        if file.about:
            yield f"{escape(file.about, quote=False)}\n"
        if group in _SHOWN_AS_FILES:
            yield f"```yaml\n{file.body}```\n"
            continue
        if file.starts_from:
            names = " and ".join(f"`{name}`" for name in file.starts_from)
            yield f"Starts from {names}. The keys below are added or changed.\n"
        # A file that starts from another one has its further keys, too.
        yield from _keys(file.keys, dict(_arguments(file)), further=not file.starts_from)


def _arguments(file: ConfigFile) -> Iterator[tuple[str, Argument]]:
    """Yield dotted key -> argument, for each class or function that a file names."""
    for path, name in file.targets.items():
        place = place_of(path)
        if place is None:
            continue
        try:
            target = resolve_target(name, path)
        except ConfigError:  # needs an extra that is not installed
            continue
        hidden = {*injected_into(path), *place.refused}
        for argument in arguments_of(target):
            if argument.name not in hidden:
                yield f"{path}.{argument.name}", argument


def _keys(keys: list[Key], arguments: dict[str, Argument], *, further: bool) -> Iterator[str]:
    """Yield an entry for each key of a file, and for further arguments of its classes."""
    for key in keys:
        argument = arguments.get(key.path)
        meaning = key.comment or (argument.meaning if argument else "")
        kind = argument.kind if argument else ""
        yield _entry(key.path, key.value, kind, meaning)
    for path, argument in arguments.items() if further else ():
        stated = any(key.path == path or key.path.startswith(f"{path}.") for key in keys)
        if argument.default is not None and not stated:
            yield _entry(f"+{path}", argument.default, argument.kind, argument.meaning)


def _entry(path: str, value: str, kind: str, meaning: str) -> str:
    """Return a key as a term and its definition."""
    facts = " · ".join(part for part in (f"`{value}`", kind) if part)
    lines = [f"`{path}`", f":   {facts}"]
    if meaning:
        lines += ["", f"    {escape(meaning, quote=False)}"]
    return "\n".join([*lines, ""])
