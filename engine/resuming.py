"""Resume a run from a matching checkpoint, with the config and the data of its start."""

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import lightning
import torch
from lightning.pytorch.trainer.connectors import checkpoint_connector
from omegaconf import DictConfig, OmegaConf

from engine.checkpoints import CheckpointError, load_checkpoint
from engine.config.recorded import default_values, read_config
from engine.config.redaction import redacted
from engine.config.settling import make_paths_absolute
from lightning_modules.base import Task
from lightning_modules.callbacks.history import History
from run_folders.errors import UserError, brief
from run_folders.nested import leaves
from run_folders.run_folder import RunFolder
from run_folders.untrusted import damaged
from run_folders.value_types import type_fault

log = logging.getLogger(__name__)

# Prefixes of keys that must not change when a run resumes in its folder. Other keys may change:
# epochs, devices, loggers, paths.
_KEPT = (
    "seed",
    "monitor",
    "mode",
    "model.",
    "callbacks.unfreezing",
    "data.augmentation",
    "data.size",
    "data.class_list",
    "data.native_evaluation",
    "data.classes",
    "data.label_column",
    "data.label_separator",
    "data.cleaning",
    "data.tokenizer",
    "data.max_length",
    "data.batch_size",
    "trainer.precision",
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
)
_SHOWN = 5


def checkpoint_to_start_from(cfg: DictConfig, folder: RunFolder) -> Path | None:
    """Return the path of the checkpoint that `ckpt_path` names.

    Args:
        cfg: The config; `ckpt_path` is null, last or a path.
        folder: The run folder; for `last` it has that checkpoint or config.yaml, see
            `RunFolder.begin`.

    Returns:
        The path; None if the run starts from the beginning, as one without a complete epoch does.

    Raises:
        CheckpointError: If the run in the folder began with another config.
    """
    if cfg.ckpt_path is None:
        return None
    if cfg.ckpt_path != "last":
        return Path(cfg.ckpt_path)
    if folder.config.is_file():
        recorded = read_config(folder.config, to_train=True)
        make_paths_absolute(recorded)  # in version 0.1 they could be relative
        before, now = _values(recorded, resolve=True), _values(redacted(cfg), resolve=False)
        defaults = leaves({group: default_values(cfg, group) for group in ("model", "data")})
        had = {**defaults, **before}
        changed = [
            key
            for key in {**before, **now}
            if key.startswith(_KEPT) and had.get(key) != now.get(key)
        ]
        if changed:
            shown = "; ".join(
                f"{key} was {had.get(key)!r} and is {now.get(key)!r}" for key in changed[:_SHOWN]
            )
            msg = (
                f"{folder.path} began with another config: {shown}; "
                f"give the same overrides again, or start a new run"
            )
            raise CheckpointError(msg)
    if not folder.last_checkpoint.exists() and folder.rungs.is_dir():
        return None  # a ladder: each rung resumes from its own checkpoint
    if not folder.last_checkpoint.exists():
        log.warning("%s has no complete epoch; it starts from the beginning", folder.path)
        return None
    return folder.last_checkpoint


def _values(cfg: DictConfig, *, resolve: bool) -> dict[str, Any]:
    """Return dotted key -> value; resolving turns the escaped text of a recorded config back."""
    plain: Any = OmegaConf.to_container(cfg, resolve=resolve)
    return leaves(plain)


class _Batches(TypedDict):
    """The progress within an epoch."""

    is_last_batch: bool


_FitLoop = TypedDict(
    "_FitLoop", {"epoch_progress": dict[str, Any], "epoch_loop.batch_progress": _Batches}
)


class _Loops(TypedDict):
    """The progress of training."""

    fit_loop: _FitLoop


class _TrainingState(TypedDict):
    """What Lightning needs of a checkpoint to continue training."""

    epoch: int
    global_step: int
    loops: _Loops
    callbacks: dict[str, Any]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[dict[str, Any]]


def first_epoch(path: Path, max_epochs: int | None, task: Task) -> int:
    """Check that a checkpoint fits the network, and return the first epoch to train.

    Args:
        path: The checkpoint.
        max_epochs: The number of epochs after which training ends; None or -1 for no limit.
        task: The task that will load its weights.

    Returns:
        The first epoch to train.

    Raises:
        CheckpointError: If the checkpoint is damaged, belongs to another network, was written
            within an epoch, or has trained for more than `max_epochs`.
        DamagedFileError: If the checkpoint lacks a part of the training state.
    """
    checkpoint = load_checkpoint(path)
    fault = type_fault(checkpoint, _TrainingState)
    if fault:
        raise damaged(path, fault, "take the run's last.ckpt, or start a new run")
    epoch: int = checkpoint["epoch"]
    batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    if checkpoint["global_step"] and not batches["is_last_batch"]:
        msg = (
            f"{path} was written within epoch {epoch}, counted from 0, and a run continues only "
            f"after a complete epoch; give the last.ckpt of its run, or start a new run from its "
            f"backbone with model.backbone=RUN"
        )
        raise CheckpointError(msg)
    if max_epochs is not None and 0 <= max_epochs <= epoch:
        msg = (
            f"{path} is from epoch {epoch}, counted from 0; trainer.max_epochs={max_epochs} ends "
            f"before it; raise trainer.max_epochs"
        )
        raise CheckpointError(msg)
    stored, built = checkpoint["state_dict"], task.state_dict()
    for name in {**built, **stored}:
        shapes = [
            tuple(state[name].shape) if name in state else "missing" for state in (stored, built)
        ]
        if shapes[0] != shapes[1]:
            msg = (
                f"{path} is of another network: {name} is {shapes[0]} in it "
                f"and {shapes[1]} in this config's model"
            )
            raise CheckpointError(msg)
    return epoch + 1


@contextmanager
def restoring(path: Path | None, trainer: lightning.Trainer) -> Iterator[None]:
    """Name the checkpoint in an error of its state.

    It is raised while Lightning loads the state, or by the first step of the optimizer with it.
    Other errors stay as they are.

    Args:
        path: The checkpoint; None for a run that starts from the beginning.
        trainer: The trainer that is about to train.

    Raises:
        DamagedFileError: If there is such an error.
    """
    try:
        yield
    except Exception as error:
        histories = [call for call in trainer.callbacks if isinstance(call, History)]  # type: ignore[attr-defined]
        started = all(history.started for history in histories)
        if path is None or started or not _is_of_state(error):
            raise
        reason = f"training cannot continue with it ({brief(error)})"
        raise damaged(path, reason, "take another one, or start a new run") from error


def _is_of_state(error: Exception) -> bool:
    """Return whether loading a state or an optimizer's own code raised an error."""
    if isinstance(error, UserError | MemoryError | torch.OutOfMemoryError):
        return False
    modules = [
        str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    # A step of the optimizer also runs the network, so only the last call counts there, apart from
    # the helpers that sort the optimizer's tensors.
    last = next((name for name in reversed(modules) if not name.startswith("torch.utils.")), "")
    return checkpoint_connector.__name__ in modules or last.startswith("torch.optim.")


def check_same_data(folder: RunFolder, data: dict[str, Any]) -> None:
    """Raise `CheckpointError` if the data differs from the data that the run began with."""
    before = folder.read_json("provenance.json").get("data", {})
    for split in ("train", "val", "test"):
        if split in before and before[split]["sha256"] != data[split]["sha256"]:
            msg = (
                f"the {split} split is not the one that {folder.path} began with ("
                f"{before[split]['rows']} rows then, {data[split]['rows']} now, or other content); "
                f"restore the data, or start a new run"
            )
            raise CheckpointError(msg)
