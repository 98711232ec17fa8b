"""The keys of a config that belong to no class."""

from typing import Annotated, Any, Literal, TypedDict

from annotated_types import Ge, Interval


class Cache(TypedDict, total=False):
    """The key `cache`."""

    features: bool | Literal["auto"]
    dir: str | None
    max_gb: Annotated[float, Interval(gt=0, le=1e9)]


class Samples(TypedDict, total=False):
    """The key `samples`."""

    train: Annotated[int, Ge(1)]
    val: Annotated[int, Ge(1)]
    test: Annotated[int, Ge(1)]


class Sweep(TypedDict, total=False):
    """The key `sweep`."""

    resume: str | None
    trial: Any


class Paths(TypedDict, total=False):
    """The key `paths`."""

    data_dir: str
    runs_dir: str


class Root(TypedDict, total=False):
    """The keys of `configs/train.yaml` that no group sets."""

    name: str
    seed: Annotated[int, Interval(ge=0, le=2**32 - 1)]
    monitor: str
    mode: Literal["min", "max"]
    train: bool
    test: bool
    ckpt_path: str | None
    plan: bool | Literal["cost"]
    estimate: bool
    samples: Samples | None
    cache: Cache
    sweep: Sweep


class Dimension(TypedDict, total=False):
    """An entry of a search space; see `engine.sweeps.space.check_space`.

    Attributes:
        type: The kind of values.
        low: The least value.
        high: The largest value.
        log: Whether values are drawn by their logarithm.
        step: The difference between neighbouring values.
        choices: The values of a categorical dimension.
        when: Key -> value or values; the dimension is searched only if earlier keys have them.
    """

    type: Literal["float", "int", "categorical"]
    low: float
    high: float
    log: bool
    step: float
    choices: list[Any]
    when: dict[str, Any]


class Search(TypedDict, total=False):
    """The keys of `hydra.sweeper` for a search; see `engine.sweeps.search_settings.Settings`.

    Attributes:
        n_trials: The number of trials in the study, of all machines and resumed sweeps together.
        n_jobs: The number of trials that are launched together.
        objectives: Metric -> min or max.
        sampler: The name of the sampler.
        sampler_options: Arguments of the sampler's class.
        pruner: The name of the pruner.
        pruner_options: Arguments of the pruner's class.
        seed: The seed of the sampler.
        storage: The URL of a database or the path of a file; null for a file in the sweep's folder.
        study_name: The name of a shared study; null for a study of this sweep alone.
    """

    n_trials: Annotated[int, Ge(1)]
    n_jobs: Annotated[int, Ge(1)]
    objectives: dict[str, Any] | None
    sampler: Literal["tpe", "random", "qmc", "gp", "nsgaii"]
    sampler_options: dict[str, Any] | None
    pruner: Literal["median", "hyperband", "none"]
    pruner_options: dict[str, Any] | None
    seed: int | None
    storage: str | None
    study_name: str | None
