"""Validate the composed config before any work, and report all faults together."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.config.composing.sources import COMMAND_LINE, Source, sources_of_keys
from engine.config.errors import ConfigError
from engine.config.inapplicable import inapplicable_keys
from engine.config.objects import class_count_faults, object_faults
from engine.config.precision import precision_fault
from engine.config.signatures import Fault
from engine.config.validation.keys import ADVICE_FOR_NULL, unknown_keys, unresolved_values
from engine.config.validation.model import choice_faults, kind_faults, part_faults
from engine.config.validation.monitor import mode_faults, monitor_faults
from engine.config.validation.run import (
    cache_faults,
    samples_faults,
    seed_faults,
    study_faults,
    switch_faults,
    untrained_faults,
    weights_faults,
)
from engine.config.validation.trainer import length_faults, trainer_faults
from engine.old_names import removal
from run_folders.nested import delete, leaves, nodes, value_at

_INTEGERS = 2**63  # the least integer that torch cannot read
# The checks of the resolved values, in the order of the report.
_CHECKS: tuple[Callable[[dict[str, Any]], Iterator[Fault]], ...] = (
    seed_faults,
    length_faults,
    mode_faults,
    switch_faults,
    samples_faults,
    weights_faults,
    cache_faults,
    untrained_faults,
    study_faults,
    class_count_faults,
    kind_faults,
    monitor_faults,
    trainer_faults,
    part_faults,
    object_faults,
)


def validate(cfg: DictConfig, *, inferred: bool = False) -> None:
    """Check the whole config without building anything.

    Args:
        cfg: The composed config.
        inferred: Whether the settings that follow from the data are set. Before, the number of
            classes may be open.

    Raises:
        ConfigError: If the config has faults; the message lists all of them.
    """
    unresolved = list(unresolved_values(cfg))
    faults = [*unknown_keys(cfg), *unresolved]
    if not unresolved:
        values: Any = OmegaConf.to_container(cfg, resolve=True)
        faults += _value_faults(cfg, values)
        if not inferred and OmegaConf.select(cfg, "data.num_classes") is None:
            faults = [fault for fault in faults if fault[0] != "model.num_classes"]
        removed = {
            path: message
            for path, value in nodes(values)
            if (message := removal(path, value)) is not None
        }
        faults = [*removed.items(), *(fault for fault in faults if fault[0] not in removed)]
    if faults:
        sources = sources_of_keys()
        lines = [
            f"{path} ({_source(path, sources)}): {fault}" for path, fault in dict.fromkeys(faults)
        ]
        count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
        msg = f"{count} in the config; nothing was run"
        raise ConfigError(msg, *lines)


def _value_faults(cfg: DictConfig, values: dict[str, Any]) -> Iterator[Fault]:
    """Check the resolved values.

    Args:
        cfg: The composed config.
        values: Its resolved values. Keys that no check may see are deleted from them.
    """
    trainer = values.get("trainer")
    if isinstance(trainer, dict) and "precision" in trainer:
        fault = precision_fault(trainer.pop("precision"))  # Lightning does not know `auto`
        if fault:
            yield "trainer.precision", fault
    yield from choice_faults()
    for path in inapplicable_keys(cfg):  # `settle` drops them
        delete(values, path)
    unusable = list(_unusable_numbers(values))
    if unusable:
        yield from unusable
        return
    for check in _CHECKS:
        for path, fault in check(values):
            advice = ADVICE_FOR_NULL.get(path) if value_at(values, path) is None else None
            yield path, f"{fault}; {advice}" if advice else fault


def _unusable_numbers(values: dict[str, Any]) -> Iterator[Fault]:
    """Check that torch can read each integer, and that no number is NaN: other checks compute."""
    for path, value in leaves(values).items():
        if isinstance(value, int) and abs(value) >= _INTEGERS:
            yield path, "received an integer of more than 64 bits; give a smaller one"
        elif isinstance(value, float) and math.isnan(value):
            yield path, "received nan; give a number"


def _source(path: str, sources: dict[str, Source]) -> str:
    """Return where a key, or else the nearest mapping around it, was set."""
    while path:
        if path in sources:
            return sources[path].name
        path = path.rpartition(".")[0]
    return COMMAND_LINE
