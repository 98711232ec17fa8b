"""Build the loggers and start their runs on the dashboards."""

import importlib.util
import logging
import os
import socket
import sys
import textwrap
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any

import lightning
from filelock import FileLock
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from engine.config.instantiating import build_object
from engine.config.redaction import hide, secret_values
from engine.processes.outcome import is_user_error
from engine.processes.ranks import is_rank_zero
from lightning_modules.loggers.base import Dashboard, LoggerError
from run_folders.errors import brief
from run_folders.run_folder import RunFolder

log = logging.getLogger(__name__)

_RUNS = "loggers.json"  # name of a logger in the config -> run_id of its run
# Logger, which is also the name of an extra -> the packages that it needs.
_REQUIRED_PACKAGES = {
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}
_SQLITE = "sqlite:///"
# Set while a logger starts: MLflow would try for minutes to reach a server that is not there.
_FEW_RETRIES = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "15"}
# What to do, besides correcting the logger's node in the config.
_ADVICE = {
    "mlflow": "check logger.mlflow.tracking_uri or MLFLOW_TRACKING_URI, restore a deleted "
    "experiment (`mlflow experiments restore`), correct logger.mlflow in the config",
}


def build_loggers(cfg: DictConfig, folder: RunFolder) -> list[Logger]:
    """Build the loggers, on the first process only.

    A logger resumes the run that the run folder has recorded for it.
    """
    if cfg.plan or not is_rank_zero():
        return []
    runs, loggers = folder.read_json(_RUNS), []
    for name, node in cfg.logger.items():
        known = {"run_id": runs[name]} if "run_id" in node and name in runs else {}
        with starting_logger(cfg, str(name)):
            if name == "mlflow" and not known and node.get("run_id") is None:
                known = _experiment_of_environment(node)
            loggers.append(build_object(cfg, f"logger.{name}", **known))
    return loggers


def _experiment_of_environment(node: DictConfig) -> dict[str, str]:
    """Return the name of the experiment of MLFLOW_EXPERIMENT_ID, unless the config names one.

    Lightning's logger takes names only.

    Raises:
        LoggerError: If there is no such experiment, or MLFLOW_EXPERIMENT_NAME names another one.
    """
    number, name = map(os.environ.get, ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"))
    if not number or node.get("experiment_name") not in (number, name):
        return {}
    from mlflow import MlflowClient, MlflowException

    try:
        found: str = MlflowClient(node.get("tracking_uri")).get_experiment(number).name
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        msg = (
            f"MLFLOW_EXPERIMENT_ID={number}: {brief(error)}; set an id that "
            f"`mlflow experiments search` lists, or MLFLOW_EXPERIMENT_NAME=NAME instead"
        )
        raise LoggerError(msg) from error
    if name and name != found:
        msg = (
            f"MLFLOW_EXPERIMENT_ID={number} is the experiment {found!r}, and "
            f"MLFLOW_EXPERIMENT_NAME is {name!r}; set one of them"
        )
        raise LoggerError(msg)
    return {"experiment_name": found}


@contextmanager
def starting_logger(cfg: DictConfig, name: str) -> Iterator[None]:
    """Prepare for a dashboard that is started inside; turn any error there into one line.

    Args:
        cfg: The config.
        name: The name of a logger in the config.

    Raises:
        LoggerError: If a package is missing, or the dashboard cannot be reached.
    """
    for package in _REQUIRED_PACKAGES.get(name, ()):
        if importlib.util.find_spec(package) is None:
            msg = (
                f"logger={name} needs the package {package}, which is not installed: "
                f"pip install -e '.[{name}]'"
            )
            raise LoggerError(msg)
    # MLflow reads these variables when it is imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    # If this module exists, TensorBoard uses its own stub of TensorFlow. Otherwise it imports an
    # installed TensorFlow completely to open a file.
    sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
    try:
        with _few_retries(), _database_lock(str(cfg.logger[name].get("tracking_uri"))):
            yield
    except Exception as error:
        if is_user_error(error):
            raise
        raise _cannot_start(cfg, name, error) from error


@contextmanager
def _few_retries() -> Iterator[None]:
    """Limit MLflow's retries, unless the environment sets them, and restore the environment.

    MLflow itself sets MLFLOW_TRACKING_URI, which the config of a sweep's next job would read.
    """
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    os.environ.update({**_FEW_RETRIES, **before})
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            del os.environ[name]
        os.environ.update(before)


def _database_lock(address: str) -> AbstractContextManager[Any]:
    """Return a lock: only one job of a sweep at a time may create the tables of a database."""
    if not address.startswith(_SQLITE):
        return nullcontext()
    return FileLock(f"{address.removeprefix(_SQLITE)}.lock")


def _cannot_start(cfg: DictConfig, name: str, error: BaseException) -> LoggerError:
    advice = _ADVICE.get(name, f"correct logger.{name} in the config")
    reason = brief(error, max_chars=None)
    msg = f"logger={name} cannot be started: {reason}; {advice}, or leave it out"
    address, first = str(cfg.logger[name].get("tracking_uri")), _connection_failure(error)
    if address.startswith("http") and first:
        msg = (
            f"logger={name}: no server can be reached at {address} ({first}); start it, set "
            f"logger.mlflow.tracking_uri or MLFLOW_TRACKING_URI, or choose another logger"
        )
    return LoggerError(hide(msg, secret_values(cfg)))


def _connection_failure(error: BaseException) -> str:
    """Return the first cause of an error if no server answered; else an empty string."""
    reason = ""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ConnectionError | TimeoutError | socket.gaierror):
            reason = brief(cause)
        cause = cause.__cause__ or cause.__context__
    return reason


def start_loggers(cfg: DictConfig, folder: RunFolder, trainer: lightning.Trainer) -> None:
    """Start the run on every dashboard, or resume the run that the folder has recorded.

    Only the first of several processes acts.

    Args:
        cfg: The config, for the names of the loggers.
        folder: The run folder, with config and provenance.
        trainer: The run's trainer; its loggers are in the order of the config.

    Raises:
        LoggerError: If a dashboard cannot be reached.
    """
    if not trainer.loggers or not trainer.is_global_zero:
        return
    config: Any = OmegaConf.to_container(OmegaConf.load(folder.config), resolve=False)
    runs = folder.read_json(_RUNS)
    for name, logger in zip(cfg.logger, trainer.loggers, strict=True):
        with starting_logger(cfg, str(name)):
            if isinstance(logger, Dashboard):
                logger.begin({**config, "provenance": folder.read_json("provenance.json")})
            else:
                resumes = name in runs or cfg.logger[name].get("run_id") is not None
                _begin_plain(logger, folder, config, resumes=resumes)
            if "run_id" in cfg.logger[name]:  # written at once, because the next logger may fail
                runs[str(name)] = logger.version
                folder.write_json(_RUNS, runs)


def _begin_plain(
    logger: Logger, folder: RunFolder, config: dict[str, Any], *, resumes: bool
) -> None:
    """Log the config to one of Lightning's own loggers."""
    if not resumes:  # MLflow does not allow changes of a parameter
        logger.log_hyperparams(config)
    if isinstance(logger, TensorBoardLogger):  # it shows hyperparameters beside metrics only
        logger.experiment.add_text(
            "config", textwrap.indent(folder.config.read_text(encoding="utf-8"), "    ")
        )
    if isinstance(logger, MLFlowLogger):
        logger.experiment.update_run(logger.run_id, status="RUNNING")
        for name in (folder.config.name, "provenance.json"):
            logger.experiment.log_artifact(logger.run_id, str(folder.path / name))
