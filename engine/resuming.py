"""Going on with a run: from a checkpoint that fits, with the config and the data that it began with."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from engine.checkpoints import CheckpointError, load_checkpoint
from engine.config.recorded import read_config
from engine.config.redaction import redacted
from lightning_modules.base import Task
from run_folders.nested import leaves
from run_folders.run_folder import RunFolder

# What a run keeps when it goes on in its folder; the rest (epochs, devices, loggers, paths) may
# change.
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
    """The checkpoint that `ckpt_path` names.

    Args:
        cfg: The config; `ckpt_path` is null, last or a path.
        folder: The run folder, in which `last` lies.

    Returns:
        Its path, or None for a run from the start.

    Raises:
        CheckpointError: If the folder's run began with another config.
    """
    if cfg.ckpt_path is None:
        return None
    if cfg.ckpt_path != "last":
        return Path(cfg.ckpt_path)
    if folder.config.is_file():
        before, now = _values(read_config(folder.config, to_train=True)), _values(redacted(cfg))
        changed = [
            key
            for key in {**before, **now}
            if key.startswith(_KEPT) and before.get(key) != now.get(key)
        ]
        if changed:
            shown = "; ".join(
                f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in changed[:_SHOWN]
            )
            msg = f"{folder.path} began with another config: {shown}; give the same overrides again, or start a new run"
            raise CheckpointError(msg)
    return folder.last_checkpoint


def _values(cfg: DictConfig) -> dict[str, Any]:
    """Dotted key -> value as written."""
    plain: Any = OmegaConf.to_container(cfg, resolve=False)
    return leaves(plain)


def first_epoch(path: Path, max_epochs: int | None, task: Task) -> int:
    """Hold a checkpoint against the network.

    Args:
        path: The checkpoint.
        max_epochs: Where training is to end; None or -1 is nowhere.
        task: The task that is to take its weights.

    Returns:
        The first epoch to train.

    Raises:
        CheckpointError: If the checkpoint is no good, of another network, or from after the end.
    """
    checkpoint = load_checkpoint(path)
    epoch: int = checkpoint["epoch"]
    if max_epochs is not None and 0 <= max_epochs <= epoch:
        msg = f"{path} is from epoch {epoch}; trainer.max_epochs={max_epochs} ends before it"
        raise CheckpointError(msg)
    theirs, ours = checkpoint["state_dict"], task.state_dict()
    for name in {**ours, **theirs}:
        shapes = [
            tuple(state[name].shape) if name in state else "missing" for state in (theirs, ours)
        ]
        if shapes[0] != shapes[1]:
            msg = f"{path} is of another network: {name} is {shapes[0]} in it and {shapes[1]} in this config's model"
            raise CheckpointError(msg)
    return epoch + 1


def check_same_data(folder: RunFolder, data: dict[str, Any]) -> None:
    """Raise `CheckpointError` where the data is not what the folder's run began with."""
    before = folder.read_json("provenance.json").get("data", {})
    for split in ("train", "val", "test"):
        if split in before and before[split]["sha256"] != data[split]["sha256"]:
            msg = (
                f"the {split} split is not the one that {folder.path} began with ({before[split]['rows']} rows then, "
                f"{data[split]['rows']} now, or other content); bring the data back, or start a new run"
            )
            raise CheckpointError(msg)
