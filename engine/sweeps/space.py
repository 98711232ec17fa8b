"""What a search may choose: values of config keys, some only where others have been chosen."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from run_folders.errors import UserError, brief, nearest

_KINDS: dict[
    str, tuple[set[str], set[str]]
] = {  # type -> keys that it needs, keys that it may have
    "float": ({"low", "high"}, {"log", "step"}),
    "int": ({"low", "high"}, {"log", "step"}),
    "categorical": ({"choices"}, set()),
}
# What needs no quotes: no number, and no other word that Hydra takes for something else.
_PLAIN = re.compile(r"^(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./-]*$", re.IGNORECASE)

Value = str | int | float | bool | None


class SearchError(UserError, ValueError):
    """A search cannot be done as it is configured."""


def check_space(space: Mapping[str, Any]) -> None:
    """Raise `SearchError` where an entry is no dimension.

    An entry is `{type: float | int, low, high, log, step}` or `{type: categorical, choices}`, and
    may have `when: {key: value or list of values}`, which names keys before it.
    """
    if not space:
        msg = "hydra.sweeper.space is empty; say what may be chosen: {model.lr: {type: float, low: 1e-4, high: 1e-2, log: true}}"
        raise SearchError(msg)
    before: list[str] = []
    for key, entry in space.items():
        fault = _fault(entry, before)
        if fault:
            msg = f"hydra.sweeper.space.{key}: {fault}"
            raise SearchError(msg)
        before.append(key)


def _fault(entry: object, before: list[str]) -> str:
    if not isinstance(entry, Mapping) or entry.get("type") not in _KINDS:
        return f"received {entry!r}; a mapping with type: float, int or categorical is needed"
    needed, optional = _KINDS[entry["type"]]
    for name in entry:
        if name not in {"type", "when", *needed, *optional}:
            return f"unknown key {name}; {nearest(str(name), sorted({'when', *needed, *optional}))}"
    for name in needed - set(entry):
        return f"{name} is missing"
    if entry["type"] == "categorical":
        choices = entry["choices"]
        if not isinstance(choices, list) or not choices:
            return f"received choices {choices!r}; a list of values is needed"
    elif fault := _range_fault(entry):
        return fault
    conditions = entry.get("when") or {}
    if not isinstance(conditions, Mapping):
        return f"received when {conditions!r}; a mapping of keys to values is needed"
    unknown = [key for key in conditions if key not in before]
    return f"when names {unknown[0]}, which is not chosen before it" if unknown else ""


def _range_fault(entry: Mapping[str, Any]) -> str:
    low, high, step = entry["low"], entry["high"], entry.get("step")
    kinds = int if entry["type"] == "int" else (int, float)
    for name, value in (
        ("low", low),
        ("high", high),
        *((("step", step),) if step is not None else ()),
    ):
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"received {name} {value!r}; {'a whole number' if kinds is int else 'a number'} is needed"
    if step is not None and not step > 0:
        return f"received step {step!r}; above 0 is needed"
    if low > high:
        return f"low {low} is above high {high}"
    if entry.get("log") and (low <= 0 or step is not None):
        return "log needs low above 0 and no step"
    return ""


def suggest(trial: Any, space: Mapping[str, Any]) -> dict[str, Value]:  # noqa: ANN401 - an optuna.Trial, which is imported late
    """Ask a trial for a value of every key whose condition holds, in the order of the space.

    Raises:
        SearchError: If the study was begun with another space.
    """
    chosen: dict[str, Value] = {}
    for key, entry in space.items():
        conditions = (entry.get("when") or {}).items()
        if not all(
            key in chosen and chosen[key] in (v if isinstance(v, list) else [v])
            for key, v in conditions
        ):
            continue
        try:
            chosen[key] = _suggested(trial, key, entry)
        except ValueError as error:
            msg = f"hydra.sweeper.space.{key}: {brief(error, most=None)}; go on with the space that the study began with"
            raise SearchError(msg) from error
    return chosen


def _suggested(trial: Any, key: str, entry: Mapping[str, Any]) -> Value:  # noqa: ANN401 - as above
    if entry["type"] == "categorical":
        choices = [
            c if c is None or isinstance(c, str | int | float) else override_value(c)
            for c in entry["choices"]
        ]
        value: Value = trial.suggest_categorical(key, choices)
        return value
    ask = trial.suggest_int if entry["type"] == "int" else trial.suggest_float
    more = {name: entry[name] for name in ("log", "step") if entry.get(name) is not None}
    number: Value = ask(key, entry["low"], entry["high"], **more)
    return number


def override_value(value: object) -> str:
    """A value as Hydra's command line reads it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{override_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(override_value, value)) + "]"
    text = str(value)
    if not isinstance(value, str) or _PLAIN.match(text) or text[:1] in "[{":
        return text
    return QuotedString(text, Quote.single).with_quotes()
