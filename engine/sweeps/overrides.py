"""Settings of a search, from the keys of `hydra.sweeper` and the overrides of the command line."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from engine.config.composing.groups import groups
from engine.config.redaction import hide, secret_values
from engine.old_names import translate_space
from engine.sweeps.search import Search
from engine.sweeps.search_settings import Settings
from engine.sweeps.space import SearchError
from run_folders.errors import nearest
from run_folders.sweep import Sweep

# Prefixes of overrides that may differ between the machines that share a study.
_PER_MACHINE = (
    "paths.",
    "sweep",
    "logger",
    "trainer.accelerator=",
    "trainer.devices=",
    "trainer.strategy=",
    "data.num_workers=",
)


def open_search(
    hydra_context: HydraContext,
    config: DictConfig,
    settings: Mapping[str, Any],
    arguments: Sequence[str],
) -> tuple[list[str], Search]:
    """Open the study of a command line.

    Args:
        hydra_context: Hydra's context.
        config: The sweep's config, with Hydra's node.
        settings: The keys of `hydra.sweeper`.
        arguments: The overrides of the command line.

    Returns:
        The overrides that all trials share, and the search.

    Raises:
        SearchError: If the search is misconfigured, or its study cannot be opened.
    """
    sweep_node: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if sweep_node["subdir"] != "${hydra.job.num}":
        msg = (
            f"hydra.sweep.subdir={sweep_node['subdir']}: a search names its folders by the trials' "
            f"numbers; leave it out"
        )
        raise SearchError(msg)
    fixed, space = _split_overrides(
        OverridesParser.create(config_loader=hydra_context.config_loader).parse_overrides(
            list(arguments)
        )
    )
    cfg = hydra_context.config_loader.load_sweep_config(config, fixed)
    for name in ("space", "objectives", "sampler_options", "pruner_options"):
        if not isinstance(settings[name], Mapping | None):
            msg = f"hydra.sweeper.{name}: received {settings[name]!r}; a mapping is needed"
            raise SearchError(msg)
    space = translate_space({**(settings["space"] or {}), **space})
    for key, entry in space.items():
        choices = _choices(entry)
        _check_key(
            hydra_context.config_loader.load_sweep_config(config, [*fixed, *choices])
            if choices
            else cfg,
            key,
        )
    secrets = secret_values(cfg)
    sweep = Path(config.hydra.sweep.dir).resolve()
    more = {
        name: settings[name] for name in ("n_trials", "sampler", "pruner", "storage", "study_name")
    }
    search_settings = Settings(
        space=space,
        objectives=settings["objectives"] or {cfg.monitor: cfg.mode},
        monitored={cfg.monitor: cfg.mode},
        overrides=[
            hide(override, secrets) for override in fixed if not override.startswith(_PER_MACHINE)
        ],
        seed=cfg.seed if settings["seed"] is None else settings["seed"],
        max_epochs=cfg.trainer.max_epochs,
        sampler_options=settings["sampler_options"] or {},
        pruner_options=settings["pruner_options"] or {},
        **more,
    )
    return fixed, Search(sweep, search_settings, Sweep(sweep).record["id"])


def _split_overrides(overrides: Sequence[Override]) -> tuple[list[str], dict[str, Any]]:
    """Return the overrides with one value, and the sweep overrides as dimensions of the space."""
    fixed, space = [], {}
    for override in overrides:
        if override.is_sweep_override():
            space[override.get_key_element()] = _dimension(override)
        else:
            fixed.append(str(override.input_line))
    return fixed, space


def _dimension(override: Override) -> dict[str, Any]:
    sweep = override.value()
    if isinstance(sweep, ChoiceSweep):
        # Hydra converts quoted values with the same function.
        return {
            "type": "categorical",
            "choices": [Override._convert_value(item) for item in sweep.list],  # noqa: SLF001
        }
    log = (
        {"log": True}
        if isinstance(sweep, RangeSweep | IntervalSweep) and "log" in sweep.tags
        else {}
    )
    if isinstance(sweep, RangeSweep) and sweep.start is not None and sweep.stop is not None:
        whole = all(isinstance(number, int) for number in (sweep.start, sweep.stop, sweep.step))
        if not sweep.step > 0:
            msg = f"{override.input_line}: a step above 0 is needed"
            raise SearchError(msg)
        # The end is excluded, as in Python's range.
        steps = math.ceil(round((sweep.stop - sweep.start) / sweep.step, 9)) - 1
        step = {} if log else {"step": sweep.step}
        last = sweep.start + steps * sweep.step
        return {
            "type": "int" if whole else "float",
            "low": sweep.start,
            "high": last,
            **step,
            **log,
        }
    if isinstance(sweep, IntervalSweep):
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        return {"type": "int" if whole else "float", "low": sweep.start, "high": sweep.end, **log}
    msg = (
        f"{override.input_line}: a search takes choice(...), range(...), interval(...) "
        "and tag(log, interval(...))"
    )
    raise SearchError(msg)


def _choices(entry: object) -> list[str]:
    """Return the options of groups under which a dimension is used, as overrides."""
    when = entry.get("when") if isinstance(entry, Mapping) else None
    first = {k: v[0] if isinstance(v, list) and v else v for k, v in (when or {}).items()}
    return [f"{key}={value}" for key, value in first.items() if key in groups()]


def _check_key(cfg: DictConfig, key: str) -> None:
    if key.startswith("+") or key in groups():
        return
    parent, _, leaf = key.rpartition(".")
    node = OmegaConf.select(cfg, parent) if parent else cfg
    if not isinstance(node, DictConfig) or leaf not in node:
        known = (
            [str(name) for name in node]
            if isinstance(node, DictConfig)
            else [str(name) for name in cfg]
        )
        msg = f"hydra.sweeper.space.{key}: the config has no such key; {nearest(leaf, known)}"
        raise SearchError(msg)
