"""Checkpoints that are written whole or not at all, and loaded without running code."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from engine.run_folder import write_atomically


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or not ours."""

    is_for_the_user = True


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, fsyncs and replaces; reads with `weights_only=True` only."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401, ARG002 - Lightning's signature
    ) -> None:
        """Write a checkpoint."""
        write_atomically(Path(path), lambda temporary: torch.save(checkpoint, temporary))

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = None,  # noqa: ARG002 - weights go to the CPU first
        weights_only: bool | None = None,  # noqa: ARG002, FBT001 - never anything else
    ) -> dict[str, Any]:
        """Read a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(Path(path))


def _check_sums(path: Path) -> None:
    """Hold every part of the archive against its checksum, which torch itself does not look at."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        msg = f"{damaged} does not match its checksum"
        raise zipfile.BadZipFile(msg)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        CheckpointError: If the file is missing, damaged, or not one that Thaw wrote.
    """
    if not path.is_file():
        msg = f"{path}: no such checkpoint; ckpt_path takes last (with hydra.run.dir=RUN) or the path of a .ckpt file"
        raise CheckpointError(msg)
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds: RuntimeError, UnpicklingError, EOFError, ...
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        msg = f"{path} is damaged or not a checkpoint of Thaw ({reason}); take another one, or train again"
        raise CheckpointError(msg) from error
    if not isinstance(checkpoint, dict) or checkpoint.get("thaw", {}).get("format") != 1:
        msg = f"{path} is not a checkpoint of Thaw; ckpt_path takes best.ckpt or last.ckpt of a run folder"
        raise CheckpointError(msg)
    return checkpoint
