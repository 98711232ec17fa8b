"""Keys of the published Optuna plugin of Hydra, and what Thaw's sweeper has in their place."""

_SPACE = (
    "hydra.sweeper.space={KEY: {type: float, low: 1e-4, high: 1e-2, log: true}}, "
    "or KEY=interval(1e-4, 1e-2) on the command line"
)
_INSTEAD = {
    "params": _SPACE,
    "search_space": _SPACE,
    "custom_search_space": f"{_SPACE}; `when` states conditions",
    "direction": "hydra.sweeper.objectives={METRIC: max}; the default is the monitored metric",
    "sampler": (
        "hydra.sweeper.sampler=tpe, random, qmc, gp or nsgaii, its arguments with "
        "hydra.sweeper.sampler_options={...}, and its seed with hydra.sweeper.seed"
    ),
    "max_failure_rate": "nothing: failed trials are reported, and sweep.resume runs them again",
}


def replacement(key: str) -> str | None:
    """Return one line about a key that only the published plugin has.

    Args:
        key: A key or a group such as `hydra.sweeper.direction` or `hydra/sweeper/sampler`.

    Returns:
        The line; None if the key is no key of that plugin.
    """
    parts = key.replace("/", ".").split(".")
    if parts[:2] != ["hydra", "sweeper"] or len(parts) == 2 or parts[2] not in _INSTEAD:  # noqa: PLR2004
        return None
    return (
        f"{key} is of the published Optuna plugin; Thaw's hydra/sweeper=optuna has "
        f"{_INSTEAD[parts[2]]}"
    )
