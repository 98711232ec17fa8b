"""Hydra sweeper that gets trials from an Optuna study and runs them with the chosen launcher."""

from dataclasses import dataclass, fields
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


@dataclass
class OptunaSweeperConf:
    """The keys of `hydra.sweeper`; see `engine.sweeps.search_settings.Settings`."""

    _target_: str = "hydra_plugins.thaw_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    # Mappings have the type Any and the default null. From the command line, Hydra cannot add keys
    # to a typed mapping or to an existing one.
    space: Any = None
    objectives: Any = None
    sampler: str = "tpe"
    sampler_options: Any = None
    pruner: str = "none"
    pruner_options: Any = None
    seed: int | None = None
    storage: str | None = None
    study_name: str | None = None


ConfigStore.instance().store(
    group="hydra/sweeper", name="optuna", node=OptunaSweeperConf, provider="thaw"
)


class OptunaSweeper(Sweeper):
    """Runs the trials of a search; see `engine.sweeps.search`.

    Attributes:
        hydra_context: Hydra's context, set by `setup`.
        config: The sweep's config with Hydra's node, set by `setup`.
        launcher: The chosen launcher, set by `setup`.
        n_jobs: The number of trials that are launched together.
        settings: The other keys of `hydra.sweeper`.
    """

    hydra_context: HydraContext
    config: DictConfig
    launcher: Launcher

    def __init__(self, n_jobs: int, **settings: Any) -> None:  # noqa: ANN401 - see OptunaSweeperConf
        self.n_jobs = n_jobs
        self.settings = {
            key: OmegaConf.to_object(v) if OmegaConf.is_config(v) else v
            for key, v in settings.items()
        }

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Store the config and create the launcher; Hydra calls this before `sweep`."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run trials until the study has `n_trials`.

        Args:
            arguments: The overrides of the command line; sweep overrides are added to the space.

        Raises:
            SearchError: If the search is misconfigured, or a required package is not installed.
        """
        from engine.command_line.published_optuna import replacement
        from engine.sweeps.space import SearchError

        try:
            # Imported here, as importing optuna takes half a second.
            from engine.sweeps.overrides import open_search
        except ModuleNotFoundError as error:
            msg = (
                f"hydra/sweeper=optuna needs {error.name}; "
                "install the extra `sweep`: pip install -e '.[sweep]'"
            )
            raise SearchError(msg) from error

        if self.n_jobs < 1:
            msg = f"hydra.sweeper.n_jobs: received {self.n_jobs}; at least 1 is needed"
            raise SearchError(msg)
        for name in set(self.settings) - {field.name for field in fields(OptunaSweeperConf)}:
            key = f"hydra.sweeper.{name}"
            msg = replacement(key) or f"{key}: the sweeper has no such key"
            raise SearchError(msg)
        fixed, search = open_search(self.hydra_context, self.config, self.settings, arguments)
        try:
            while asked := search.ask(self.n_jobs):
                overrides = [[*fixed, *trial.overrides] for trial in asked]
                try:
                    self.launcher.launch(overrides, initial_job_idx=asked[0].number)
                finally:
                    search.tell(asked)
        finally:
            search.write()
