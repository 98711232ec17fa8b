"""Composes and validates the configs of commands in this process, without training."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from engine.command_line.flags import CONFIG_NAME
from engine.config.composing.composition import compose_config, hydra_app
from engine.config.settling import settle
from engine.config.validation.validate import validate
from engine.sweeps.names import register_resolvers
from run_folders.run_folder import RunFolder
from tests.docs.workplace import Workplace


def composed(overrides: list[str], workplace: Workplace, *, sweep: bool) -> Iterator[DictConfig]:
    """Yield the config of a command; for a sweep, those of its first and last value of each key."""
    register_resolvers()
    for chosen in _jobs(overrides, sweep=sweep):
        with workplace.entered():
            yield compose_config(chosen)


def check_configs(overrides: list[str], workplace: Workplace, *, sweep: bool) -> None:
    """Validate and complete the config of a command, with its data, as a run does at its start."""
    register_resolvers()

    def job(cfg: DictConfig) -> None:
        validate(cfg)
        settle(cfg, RunFolder(Path(HydraConfig.get().runtime.output_dir)))
        validate(cfg, inferred=True)

    for chosen in _jobs(overrides, sweep=sweep):
        with workplace.entered(), hydra_app() as app:
            app.run(CONFIG_NAME, job, chosen, with_log_configuration=False)


def kind_of_command(overrides: Sequence[str]) -> frozenset[str]:
    """Return what decides how a command runs: all but plain values, such as numbers and names.

    These are the chosen options of groups, classes, lists and mappings.
    """
    return frozenset(word for word in overrides if not _has_plain_value(word))


def _has_plain_value(word: str) -> bool:
    key, _, value = word.partition("=")
    if key == "seed":
        return True
    return "." in key and not key.endswith("_target_") and value[:1] not in ("[", "{")


def with_two_jobs(overrides: list[str]) -> Iterator[str]:
    """Yield the overrides of a sweep with two values of the first key, and one of the others."""
    found = False
    parsed = OverridesParser.create().parse_overrides(overrides)
    for word, override in zip(overrides, parsed, strict=True):
        if override.is_sweep_override():
            values = list(override.sweep_string_iterator())
            kept = values[:1] if found else [values[0], values[-1]]
            yield f"{override.get_key_element()}={','.join(kept)}"
            found = True
        else:
            yield word


def _jobs(overrides: list[str], *, sweep: bool) -> Iterator[list[str]]:
    """Yield the overrides of a command; for a sweep, with the first and the last values."""
    plain = [w for w in overrides if not w.lstrip("+").startswith(("hydra", "sweep="))]
    for place in (0, -1) if sweep else (0,):
        yield [_one_value(word, place) if sweep else word for word in plain]


def _one_value(word: str, place: int) -> str:
    key, _, value = word.partition("=")
    if re.match(r"(tag|interval|range|choice|log)\(", value):
        return f"{key.lstrip('+')}=1" if key == "seed" else "seed=1"
    simple = "," in value and not value.startswith(("[", "{", "'", '"'))
    return f"{key}={value.split(',')[place]}" if simple else word
