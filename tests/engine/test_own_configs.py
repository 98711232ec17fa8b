"""A file in ./configs sets nothing that Hydra builds or runs before Thaw sees the config."""

from pathlib import Path

import pytest

from tests.conftest import Train

PLAN = ("plan=true", "data.rows={train: 96, val: 32, test: 40}")


def write(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / "configs" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        (
            "experiment/evil",
            "# @package _global_\nhydra: {callbacks: {x: {_target_: os.system}}}\n",
            "sets hydra.callbacks",
        ),
        (
            "experiment/evil",
            "# @package _global_\nhydra: {job: {env_set: {PATH: /tmp}}}\n",
            "sets hydra.job",
        ),
        (
            "experiment/evil",
            "# @package _global_\nhydra: {sweeper: {_target_: os.system}}\n",
            "sets hydra.sweeper._target_",
        ),
        (
            "experiment/evil",
            "# @package _global_\nhydra: {launcher: {setup: [rm]}}\n",
            "sets hydra.launcher.setup",
        ),
        (
            "experiment/evil",
            "# @package hydra.callbacks\nx: {_target_: os.system}\n",
            "has the package hydra.callbacks",
        ),
        (
            "experiment/evil",
            "# @package _global_\ndefaults: [{override /hydra/job_logging: evil}]\n",
            "chooses override /hydra/job_logging: evil",
        ),
        (
            "experiment/evil",
            "# @package _global_\ndefaults: [/callbacks@hydra.callbacks: evil]\n",
            "chooses /callbacks@hydra.callbacks",
        ),
        (
            "experiment/evil",
            "# @package _global_\ndefaults: [{override /hydra/launcher: ../../evil}]\n",
            "chooses override /hydra/launcher",
        ),
        ("hydra/callbacks/evil", "x: {_target_: os.system}\n", "is an option of a group of Hydra"),
        ("experiment/evil", "a: [1\n", "is damaged"),
    ],
)
def test_a_file_that_sets_what_hydra_builds_is_a_fault(
    name: str, text: str, fault: str, train: Train, tmp_path: Path
) -> None:
    """Even if no override names the file."""
    write(tmp_path, name, text)
    ended = train(*PLAN)
    assert ended.code == 1
    assert f"configs/{name}.yaml" in ended.error
    assert fault in ended.error


def test_a_file_may_describe_a_search(train: Train, tmp_path: Path) -> None:
    write(
        tmp_path,
        "sweep/mine",
        "# @package _global_\ndefaults: [{override /hydra/sweeper: optuna}]\n"
        "hydra: {sweeper: {n_trials: 3, space: {model.lr: {type: float, low: 0.1, high: 1}}}}\n",
    )
    ended = train("sweep=mine", *PLAN)
    assert ended.code == 0, ended.err
