"""Settings of Hydra itself: honoured, or refused in one line."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from engine.command_line.hydra_settings import check_hydra_settings, check_typed_overrides
from engine.config.composing.paths import CONFIGS
from engine.config.errors import ConfigError
from engine.sweeps.folders import choose_folder
from engine.sweeps.names import register_resolvers
from run_folders.sweep_job import SweepError
from tests.conftest import Train


def composed(*overrides: str) -> DictConfig:
    register_resolvers()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return compose("train", list(overrides), return_hydra_config=True)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.output_subdir=.hydra", "would contain secrets; the run folder has config.yaml"),
        ("hydra.output_subdir=''", "would contain secrets"),
        ("hydra.job.chdir=true", "relative paths are read from the folder in which train.py"),
        ("hydra.job.num=3", "Hydra sets this key itself"),
        ("hydra.runtime.cwd=/tmp", "Hydra sets this key itself"),
        ("hydra.job.override_dirname=x", "Hydra sets this key itself"),
        ("+hydra.job.xyz=x", "Hydra has no such key"),
        ("+hydra.xyz=x", "Hydra has no such key"),
        ("hydra.job.name=a/b", "a log file needs a name without /"),
        ("hydra.sweep.subdir=x", "concerns only a sweep; add -m"),
    ],
)
def test_what_cannot_be_honoured_is_refused(override: str, message: str) -> None:
    cfg = composed(override)
    with pytest.raises(ConfigError, match=message):
        check_hydra_settings(cfg, sweeps=False)
    if "hydra.job.num" in override:  # the processes of a job state it
        check_hydra_settings(cfg, sweeps=False, child=True)


@pytest.mark.parametrize(
    "override",
    [
        "hydra.output_subdir=null", "hydra.job.chdir=false", "hydra.job.chdir=null", "hydra.job.name=mine",
        "+hydra.job.env_set.X=1", "hydra.job_logging.root.level=DEBUG", "hydra.verbose=true", "hydra.mode=RUN", "+hydra.callbacks.own={_target_: x}",
    ],
)  # fmt: skip
def test_what_hydra_honours_is_accepted(override: str) -> None:
    cfg = composed(override)
    check_hydra_settings(cfg, sweeps=False)
    check_typed_overrides([override])


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("hydra.verbose=1.5", ""),
        ("hydra.job_logging.root.level=NOPE", "Unknown level: 'NOPE'"),
        ("hydra.job.env_copy=[NO_SUCH]", "'NO_SUCH'"),
    ],
)
def test_a_setting_with_which_hydra_fails_is_named(
    override: str, reason: str, train: Train
) -> None:
    ended = train(override)
    assert ended.error.startswith(f"error: Hydra fails with {override} hydra.run.dir=")
    assert ended.error.endswith(f"{reason}); correct these settings, or leave them out")
    assert "Traceback" not in ended.err


def test_logging_may_be_without_a_file(train: Train) -> None:
    ended = train("hydra/job_logging=stdout", "model.lr=x")
    assert ended.error.startswith("error: 1 fault in the config")


def test_a_refused_setting_leaves_no_folder(train: Train) -> None:
    ended = train("hydra.output_subdir=.hydra")
    assert ended.code == 1
    assert ended.error.startswith("error: hydra.output_subdir=.hydra: Hydra's copy of the config")
    assert not ended.folder.exists()


@pytest.mark.parametrize(
    "override",
    [
        "~hydra",
        "~hydra.callbacks.sweep",
        "hydra.callbacks.sweep=null",
        "++hydra.callbacks.sweep.x=1",
        "hydra.callbacks={sweep: null}",
        "hydra={callbacks: {sweep: null}}",
        "~hydra.callbacks",
    ],
)
def test_the_callback_that_chooses_folders_stays(override: str, train: Train) -> None:
    ended = train(override)
    assert ended.error.startswith(f"error: {override}: Thaw's callback chooses the folders of runs")
    assert not ended.folder.exists()


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir"])
def test_a_folder_without_a_name_is_refused(key: str) -> None:
    with pytest.raises(SweepError, match=f"^{key}: received ''; the path of a folder is needed"):
        choose_folder(composed(f"{key}=''"), key)
