"""Test W&B sweep agents and the script that defines the dashboard."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from wandb.wandb_agent import Agent

from run_folders.run_folder import RunFolder
from tests.conftest import ROOT, SAMPLE, Train
from tests.wandb_files import StoredRun, stored_run


def test_an_agent_runs_what_the_sweep_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's own code builds the command from the file.

    The sample replaces the experiment, which needs data.
    """
    sweep = yaml.safe_load((ROOT / "scripts" / "wandb_sweep.yaml").read_text(encoding="utf-8"))
    sample = [*SAMPLE, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [
        part
        for argument in sweep["command"]
        for part in (sample if argument.startswith("experiment=") else [argument])
    ]
    for name, value in (
        ("RUN_ID", "abcd1234"),
        ("SWEEP_ID", "wxyz6789"),
        ("MODE", "offline"),
        ("DIR", str(tmp_path / "agent")),
    ):
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.chdir(ROOT)
    agent: Any = object.__new__(Agent)
    agent._in_jupyter, agent._function, agent._forward_signals, agent._run_processes = (
        False,
        None,
        False,
        {},
    )
    agent._sweep_command = command
    values = {"model.lr": {"value": 0.003}, "model.head.hidden": {"value": 16}}
    assert set(values) == set(sweep["parameters"])
    agent._command_run({"run_id": "abcd1234", "program": sweep["program"], "args": values})
    assert agent._run_processes["abcd1234"].wait() == 0
    stored = stored_run(tmp_path / "agent")  # WANDB_DIR is obeyed
    assert (stored.run.run_id, stored.run.sweep_id) == ("abcd1234", "wxyz6789")
    model = stored.config["model"]
    assert (model["lr"], model["head"]["hidden"]) == (0.003, 16)
    assert (
        stored.summary[sweep["metric"]["name"]]
        == RunFolder(tmp_path / "run").read_json("metrics.json")["best"]["score"]
    )


def dashboard(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    command = [sys.executable, str(ROOT / "scripts" / "wandb_dashboard.py"), *arguments]
    environment = {
        **kept,
        "WANDB_CONFIG_DIR": str(place),
        "NETRC": str(place / "netrc"),
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment,
        stdin=subprocess.DEVNULL,
        cwd=place,
    )


def panels(node: Any) -> list[dict[str, Any]]:
    """Every panel in nested plain values."""
    if isinstance(node, list):
        return [panel for child in node for panel in panels(child)]
    if not isinstance(node, dict):
        return []
    return ([node] if "viewType" in node else []) + [
        panel for child in node.values() for panel in panels(child)
    ]


def keys_shown(definition: dict[str, Any]) -> set[str]:
    """Keys of the metrics and media that panels show."""
    names: set[str] = set()
    for panel in panels(definition):
        config = panel["config"]
        if panel["viewType"] in ("Run History Line Plot", "Bar Chart"):
            names |= {name for name in (*config.get("metrics", []), config.get("xAxis")) if name}
        elif panel["viewType"] == "Parameter Importance":
            names.add(config["targetKey"])
        elif panel["viewType"] == "Media Browser":
            names |= set(config["mediaKeys"])
    return names


@pytest.mark.parametrize(
    ("overrides", "monitor"),
    [
        (SAMPLE, "val/acc"),
        (
            (
                "experiment=sample_scenes",
                "data.rows={train: 16, val: 8, test: 10}",
                "data.size=32",
                "data.batch_size=8",
            ),
            "val/miou",
        ),
    ],
)
def test_the_dashboard_shows_what_runs_log(
    overrides: tuple[str, ...], monitor: str, train: Train, tmp_path: Path
) -> None:
    done = dashboard("team/thaw", "--monitor", monitor, "--print", place=tmp_path)
    assert done.returncode == 0, done.stderr
    definition = json.loads(done.stdout)
    stored = stored_run(
        train(
            *overrides, "trainer.max_epochs=1", "logger=wandb", "logger.wandb.offline=true"
        ).folder
    )
    for part in ("workspace", "report"):
        kinds = {panel["viewType"] for panel in panels(definition[part])}
        assert {"Run History Line Plot", "Bar Chart", "Vega2", "Weave", "Media Browser", "Parameter Importance",
                "Parallel Coordinates Plot", "Scalar Chart"} <= kinds  # fmt: skip
        assert keys_shown(definition[part]) - {"test/pictures"} <= logged(stored)
        assert {
            f"train/{monitor[4:]}",
            monitor,
            f"test/{monitor[4:]}",
            f"best/{monitor}",
            "step/grad_norm",
        } <= keys_shown(definition[part])
    text = done.stdout
    for table in (
        "test/confusion_table",
        "test/classes",
        "test/images" if "miou" in monitor else "test/mistakes",
    ):
        assert f'"{table}"' in text
        assert stored.table(table)
    assert "wandb/confusion_matrix/v1" in text
    for column in (
        "config:model.value.lr",
        "config:seed.value",
        f"summary:best/{monitor}",
        f"summary:test/{monitor[4:]}",
    ):
        assert column in text


def logged(stored: StoredRun) -> set[str]:
    return {key for row in stored.history for key in row} | set(stored.summary)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("thaw",), "error: received 'thaw'; ENTITY/PROJECT is needed, such as my-team/thaw\n"),
        (
            ("me/thaw",),
            "error: no W&B API key was found; set WANDB_API_KEY, run wandb login, or print the definition with --print\n",
        ),
    ],
)
def test_a_missing_project_or_key_is_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    done = dashboard(*arguments, place=tmp_path)
    assert (done.returncode, done.stderr) == (1, message)
