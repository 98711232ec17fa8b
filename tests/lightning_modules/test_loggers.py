"""Dashboards: which one is chosen, when it is rejected, and what happens if it fails."""

import importlib.util
import os
import pty
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import wandb
from filelock import FileLock, Timeout
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf
from wandb.sdk.lib import wbauth

import engine.publishing.loggers
from engine.config.composing.composition import compose_config
from engine.config.instantiating import build_object
from engine.config.redaction import redacted
from engine.publishing.loggers import build_loggers, starting_logger
from engine.sweeps.names import register_resolvers
from lightning_modules.loggers.base import Confusion, LoggerError, confusion_rows
from lightning_modules.loggers.wandb import WandbLogger
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train
from tests.processes import start, wait_for
from tests.wandb_files import stored_run

KEY = "0123456789abcdef0123456789abcdef01234567"
ONE_EPOCH = (*SAMPLE, "trainer.max_epochs=1")


@pytest.fixture(autouse=True)
def _no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    end_session()  # of an earlier test, so that monkeypatch does not restore its service
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    yield
    end_session()


def end_session() -> None:
    """Reset what W&B keeps: its service, its key, and the settings of its first run."""
    wandb.teardown()
    wbauth.unauthenticate_session()
    os.environ.pop("WANDB_SERVICE", None)


@pytest.mark.parametrize(
    ("environment", "offline", "mode"),
    [
        ({}, None, "offline"),
        ({"WANDB_API_KEY": KEY}, None, "online"),
        ({"WANDB_API_KEY": KEY}, True, "offline"),
        ({"WANDB_API_KEY": KEY}, False, "online"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, None, "offline"),
        ({"WANDB_API_KEY": KEY, "WANDB_MODE": "online"}, None, "online"),
        ({"WANDB_MODE": "disabled"}, None, "disabled"),
        ({"WANDB_API_KEY": "too short"}, True, "offline"),
    ],
)
def test_wandb_is_online_if_a_key_is_found(
    environment: dict[str, str],
    offline: bool | None,
    mode: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert WandbLogger(str(tmp_path), offline=offline).mode == mode


def test_wandb_finds_a_key_in_netrc(tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert WandbLogger(str(tmp_path)).mode == "online"


@pytest.mark.parametrize(
    ("environment", "offline", "message"),
    [
        (
            {},
            False,
            r"^logger\.wandb\.offline=false, but no W&B API key was found; set WANDB_API_KEY",
        ),
        ({"WANDB_MODE": "online"}, None, r"^WANDB_MODE=online, but no W&B API key was found"),
        (
            {"WANDB_API_KEY": "too short"},
            None,
            r"^logger=wandb: WANDB_API_KEY invalid: .*; correct the credentials",
        ),
    ],
)
def test_wandb_without_a_valid_key_is_rejected_before_it_starts(
    environment: dict[str, str],
    offline: bool | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LoggerError, match=message) as caught:
        WandbLogger(str(tmp_path), offline=offline)
    assert "too short" not in str(caught.value)
    assert wandb.run is None


def test_wandb_asks_nothing_on_a_terminal(tmp_path: Path) -> None:
    """All streams are terminals, on which W&B would otherwise ask for a key and wait."""
    ours, theirs = pty.openpty()
    overrides = (
        "trainer.accelerator=cpu",
        *ONE_EPOCH,
        "logger=wandb",
        f"hydra.run.dir={tmp_path / 'run'}",
    )
    process = start(*overrides, terminal=os.ttyname(theirs), cwd=tmp_path)
    wait_for(
        lambda: bool(select.select([ours], [], [], 0)[0]), process
    )  # it has opened its terminal
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 4096):
            output += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=60) == 0, output.decode()
    assert b"the run is logged offline" in output
    assert b"choice" not in output
    assert stored_run(tmp_path / "run").exit_code == 0


@pytest.mark.parametrize(
    ("option", "package"),
    [
        ("tensorboard", "tensorboard"),
        pytest.param("mlflow", "sqlalchemy", marks=pytest.mark.extra("mlflow")),
    ],
)
def test_a_missing_extra_is_named(
    option: str, package: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == package else real(name, *rest),
    )
    ended = train(*SAMPLE, f"logger={option}")
    assert ended.code == 1
    assert (
        ended.error
        == f"error: logger={option} needs the package {package}, which is not installed: pip install -e '.[{option}]'"
    )
    assert RunFolder(ended.folder).read_history() == []


def test_only_a_missing_server_is_called_unreachable() -> None:
    from engine.publishing.loggers import _connection_failure

    def wrapped(cause: Exception) -> Exception:
        error = RuntimeError("MLflow failed")
        error.__cause__ = cause
        return error

    refused = ConnectionRefusedError(111, "Connection refused")
    assert _connection_failure(wrapped(refused)) == "[Errno 111] Connection refused"
    assert _connection_failure(wrapped(PermissionError(13, "Permission denied"))) == ""


@pytest.mark.extra("mlflow")
def test_an_unreachable_dashboard_is_one_line_without_its_login(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    ended = train(
        *SAMPLE, "logger=mlflow", "logger.mlflow.tracking_uri=http://me:staple@127.0.0.1:9"
    )
    assert ended.code == 1
    assert ended.error == (
        "error: logger=mlflow: no server can be reached at http://<redacted>@127.0.0.1:9 ([Errno 111] "
        "Connection refused); start it, set logger.mlflow.tracking_uri or MLFLOW_TRACKING_URI, "
        "or choose another logger"
    )
    assert "Retrying" not in ended.err
    assert "staple" not in ended.err + (ended.folder / "status.json").read_text()
    assert RunFolder(ended.folder).read_history() == []


@pytest.mark.extra("mlflow")
def test_a_deleted_experiment_names_how_to_restore_it(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = MlflowClient(uri)
    client.delete_experiment(client.create_experiment("old"))
    node = {
        "_target_": "lightning.pytorch.loggers.MLFlowLogger",
        "tracking_uri": uri,
        "experiment_name": "old",
    }
    cfg = OmegaConf.create({"logger": {"mlflow": node}})
    logger = build_object(cfg, "logger.mlflow")
    restore = "`mlflow experiments restore`"
    with pytest.raises(LoggerError, match=restore) as caught, starting_logger(cfg, "mlflow"):
        logger.log_hyperparams({"a": 1})
    assert "\n" not in str(caught.value)


def test_a_logger_starts_with_few_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits hold for the start only, and those of the environment come first.

    What MLflow itself sets is removed.
    """
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    cfg = OmegaConf.create({"logger": {"other": {}}})
    with starting_logger(cfg, "other"):
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
        os.environ["MLFLOW_TRACKING_URI"] = "of this run"
    assert "MLFLOW_TRACKING_URI" not in os.environ
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"


_WANDB = {
    "WANDB_PROJECT": "project",
    "WANDB_NAME": "name",
    "WANDB_RUN_GROUP": "group",
    "WANDB_JOB_TYPE": "job_type",
    "WANDB_DIR": "save_dir",
}
_MLFLOW = {
    "MLFLOW_TRACKING_URI": "tracking_uri",
    "MLFLOW_EXPERIMENT_NAME": "experiment_name",
    "MLFLOW_RUN_NAME": "run_name",
    "MLFLOW_RUN_ID": "run_id",
}


@contextmanager
def composed(*overrides: str) -> Iterator[DictConfig]:
    """A config whose loggers can be built."""
    register_resolvers()
    cfg = compose_config(["name=x", *overrides])
    OmegaConf.register_new_resolver("hydra", lambda _: "/runs/x/y", replace=True)
    try:
        yield cfg
    finally:
        OmegaConf.clear_resolver("hydra")


@pytest.mark.parametrize(("logger", "keys"), [("wandb", _WANDB), ("mlflow", _MLFLOW)])
def test_the_environment_is_obeyed_unless_the_config_sets_a_key(
    logger: str, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded config names the variable; it does not contain its value."""
    for variable in keys:
        monkeypatch.delenv(variable, raising=False)

    def values(*overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
        with composed(f"logger={logger}", *overrides) as cfg:
            node = OmegaConf.to_container(cfg.logger, resolve=True)
            return node[logger], OmegaConf.to_container(redacted(cfg.logger))[logger]

    default, _ = values()
    for variable in keys:
        monkeypatch.setenv(variable, f"of {variable}")
    set_by_environment, recorded = values()
    explicit, _ = values(*(f"logger.{logger}.{key}=mine" for key in keys.values()))
    for variable, key in keys.items():
        assert default[key] != f"of {variable}"
        assert set_by_environment[key] == f"of {variable}"
        assert recorded[key] == f"${{oc.env:{variable}}}"
        assert explicit[key] == "mine"


@pytest.mark.extra("mlflow")
def test_an_experiment_id_of_the_environment_is_obeyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    number = MlflowClient(uri).create_experiment("first")
    for variable in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)

    monkeypatch.setattr(engine.publishing.loggers, "build_object", lambda *_, **known: known)

    def experiment(*overrides: str) -> Any:
        """The experiment that Lightning's logger gets in place of the config's."""
        with composed("logger=mlflow", f"logger.mlflow.tracking_uri={uri}", *overrides) as cfg:
            (arguments,) = build_loggers(cfg, RunFolder(tmp_path))
            return arguments.get("experiment_name")

    assert experiment() == "first"
    assert experiment("logger.mlflow.experiment_name=mine") is None
    assert experiment("logger.mlflow.run_id=mine") is None
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "second")
    with pytest.raises(LoggerError, match=r"is the experiment 'first', and MLFLOW_EXPERIMENT_NAME"):
        experiment()
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    for unknown in ("77", "x"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", unknown)
        with pytest.raises(LoggerError, match=f"^MLFLOW_EXPERIMENT_ID={unknown}: ") as caught:
            experiment()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("tags", ["x" * 65], r"^logger\.wandb\.tags: .* 65 characters"),
        ("tags", [""], r"^logger\.wandb\.tags: "),
        ("project", "a/b", r"^logger\.wandb\.project: .*'a/b'"),
        ("project", "p" * 129, r"^logger\.wandb\.project: .*128"),
        ("run_id", "a/b", r"^logger\.wandb\.run_id: "),
    ],
)
def test_values_that_wandb_rejects_are_one_line(
    option: str, value: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(LoggerError, match=message) as caught:
        WandbLogger(str(tmp_path), offline=True, **{option: value})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_tags_of_the_environment_are_taken_and_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_TAGS", "a, b")
    logger = WandbLogger(str(tmp_path), offline=True)
    assert logger._wandb_init["tags"] == ["a", "b"]
    with monkeypatch.context() as patch:
        patch.setenv("WANDB_TAGS", "x" * 65)
        with pytest.raises(LoggerError, match="65 characters"):
            WandbLogger(str(tmp_path))


@pytest.mark.extra("mlflow")
def test_jobs_create_the_tables_of_a_database_one_after_another(tmp_path: Path) -> None:
    cfg = OmegaConf.create(
        {"logger": {"mlflow": {"tracking_uri": f"sqlite:///{tmp_path}/runs/mlflow.db"}}}
    )
    with starting_logger(cfg, "mlflow"), pytest.raises(Timeout):
        FileLock(tmp_path / "runs" / "mlflow.db.lock", timeout=0).acquire()


def test_only_the_first_process_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    node = {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "save_dir": str(tmp_path)}
    cfg = OmegaConf.create({"plan": False, "logger": {"tensorboard": node}})
    for first in (True, False):
        monkeypatch.setattr(engine.publishing.loggers, "is_rank_zero", lambda first=first: first)
        assert len(build_loggers(cfg, RunFolder(tmp_path))) == first


def test_a_failing_dashboard_affects_neither_the_run_nor_other_dashboards(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at curves, metrics and closing; the other dashboard receives everything."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space\nleft")

    for name in ("log_metrics", "finalize"):
        monkeypatch.setattr(TensorBoardLogger, name, fail)
    ended = train(*ONE_EPOCH, "logger=[tensorboard,wandb]")
    assert ended.code == 0, ended.err
    assert RunFolder(ended.folder).read_json("status.json")["state"] == "finished"
    assert (
        ended.err.count(
            "TensorBoardLogger failed (no space left) and receives no more curves; history.csv has all of them"
        )
        == 1
    )
    assert (
        "TensorBoardLogger did not take the metrics (no space left); the run folder has it"
        in ended.err
    )
    assert "TensorBoardLogger could not be closed: no space left" in ended.err
    stored = stored_run(ended.folder)
    assert stored.exit_code == 0
    assert stored.curve("val/acc")
    assert stored.table("test/classes")


def test_wandb_that_fails_to_log_one_table_logs_the_others(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no https://me:staple@host")

    monkeypatch.setattr(wandb, "plot_table", fail)
    ended = train(*ONE_EPOCH, "logger=wandb")
    assert ended.code == 0, ended.err
    assert (
        "WandbLogger did not take the confusion matrix (no https://<redacted>@host); the run folder has it"
        in ended.err
    )
    assert stored_run(ended.folder).table("test/classes")
    assert stored_run(ended.folder).artifacts


def test_wandb_is_closed_if_the_next_dashboard_cannot_start(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(TensorBoardLogger, "log_hyperparams", fail)
    ended = train(*ONE_EPOCH, "logger=[wandb,tensorboard]")
    advice = "correct logger.tensorboard in the config, or leave it out"
    assert ended.error == f"error: logger=tensorboard cannot be started: no space left; {advice}"
    assert stored_run(ended.folder).exit_code == 1
    assert wandb.run is None


def test_wandb_that_cannot_start_is_one_line(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise wandb.errors.CommError("the service\nis away")

    monkeypatch.setattr(wandb, "init", fail)
    ended = train(*ONE_EPOCH, "logger=wandb")
    assert (
        ended.error
        == "error: logger=wandb: the service is away; set logger.wandb.offline=true to log into the run folder instead"
    )


def test_an_interrupted_run_is_stored_with_its_exit_code(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.processes.signals import InterruptedRunError
    from lightning_modules.text_classifier import TextClassifier

    def stop(self: TextClassifier) -> None:
        raise InterruptedRunError(15)

    monkeypatch.setattr(TextClassifier, "on_test_epoch_start", stop)
    ended = train(*ONE_EPOCH, "logger=wandb")
    assert ended.code == 143
    assert stored_run(ended.folder).exit_code == 143


def test_a_plan_starts_no_dashboard(train: Train) -> None:
    ended = train(*SAMPLE, "plan=true", "logger=[wandb,tensorboard]")
    assert ended.code == 0, ended.err
    assert not ended.folder.exists()


def test_a_mistyped_dashboard_is_named(train: Train) -> None:
    ended = train(*SAMPLE, "logger=[wandb,tensorbord]")
    assert ended.code == 1
    assert "tensorbord" in ended.error


def test_without_a_dashboard_no_steps_are_recorded(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_modules.callbacks.curves import Curves

    monkeypatch.setattr(Curves, "__init__", lambda *_: pytest.fail("made"))
    assert train(*ONE_EPOCH).code == 0


def test_logging_of_steps_can_be_turned_off(train: Train) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    ended = train(*ONE_EPOCH, "logger=tensorboard", "trainer.log_every_n_steps=0")
    assert ended.code == 0, ended.err
    events = EventAccumulator(str(ended.folder / "tensorboard")).Reload()
    assert "step/loss" not in events.Tags()["scalars"]
    assert len(events.Scalars("val/loss")) == 1


def test_confusion_of_many_classes_is_limited_to_the_largest_cells() -> None:
    confusion = Confusion(["a", "b"], [[0, 5], [3, 4]])
    assert confusion_rows(confusion, most=2).rows == [["a", "b", 5], ["b", "b", 4]]
    assert confusion_rows(confusion).rows == [
        ["a", "a", 0],
        ["a", "b", 5],
        ["b", "a", 3],
        ["b", "b", 4],
    ]
