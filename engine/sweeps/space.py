"""The search space: values of config keys, some of them conditional on values of other keys."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

from run_folders.errors import UserError, brief, nearest

# Type of an entry -> its required keys, its optional keys.
_KINDS: dict[str, tuple[set[str], set[str]]] = {
    "float": ({"low", "high"}, {"log", "step"}),
    "int": ({"low", "high"}, {"log", "step"}),
    "categorical": ({"choices"}, set()),
}
# Text that needs no quotes, as Hydra does not parse it as a number or another constant.
_PLAIN = re.compile(r"^(?!(?:true|false|null|inf|nan)$)[A-Za-z_][\w./-]*$", re.IGNORECASE)

Value = str | int | float | bool | None


class SearchError(UserError, ValueError):
    """The configuration of a search is invalid, or does not match its study."""


def check_space(space: Mapping[str, Any]) -> None:
    """Check the entries of a search space.

    An entry is `{type: float | int, low, high, log, step}` or `{type: categorical, choices}`. It
    may have a condition `when: {key: value or list of values}` on keys of earlier entries.

    Args:
        space: Config key -> entry.

    Raises:
        SearchError: If the space is empty, or an entry is invalid.
    """
    if not space:
        msg = (
            "hydra.sweeper.space is empty; add a dimension, for example "
            "{model.lr: {type: float, low: 1e-4, high: 1e-2, log: true}}"
        )
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
    return f"when names {unknown[0]}, which is not an earlier entry" if unknown else ""


def _range_fault(entry: Mapping[str, Any]) -> str:
    low, high, step = entry["low"], entry["high"], entry.get("step")
    kinds = int if entry["type"] == "int" else (int, float)
    for name, value in (
        ("low", low),
        ("high", high),
        *((("step", step),) if step is not None else ()),
    ):
        if not isinstance(value, kinds) or isinstance(value, bool):
            needed = "an integer" if kinds is int else "a number"
            return f"received {name} {value!r}; {needed} is needed"
    if step is not None and not step > 0:
        return f"received step {step!r}; above 0 is needed"
    if low > high:
        return f"low {low} is above high {high}"
    if entry.get("log") and (low <= 0 or step is not None):
        return "log needs low above 0 and no step"
    return ""


def suggest(trial: Any, space: Mapping[str, Any]) -> dict[str, Value]:  # noqa: ANN401 - an optuna.Trial, which is imported late
    """Return the values that a trial suggests for all keys whose conditions are met.

    The keys are suggested in the order of the space.

    Raises:
        SearchError: If the study was created with another space.
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
            chosen[key] = _suggest_one(trial, key, entry)
        except ValueError as error:
            msg = (
                f"hydra.sweeper.space.{key}: {brief(error, max_chars=None)}; "
                "use the space that the study was created with"
            )
            raise SearchError(msg) from error
    return chosen


def _suggest_one(trial: Any, key: str, entry: Mapping[str, Any]) -> Value:  # noqa: ANN401 - as above
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
    """Return a value in the syntax of a Hydra override."""
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
