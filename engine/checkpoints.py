"""Checkpoints that are written whole or not at all, and loaded without running code."""

import os
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from datamodules.batching.stored_features import digest_of_tensors
from engine.old_names import translate_checkpoint
from run_folders.errors import UserError, brief
from run_folders.run_folder import link_atomically, write_atomically

_FORMAT = 1
_FROZEN = "frozen.ckpt"


class CheckpointError(UserError, ValueError):
    """A checkpoint is missing, damaged or not ours."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, fsyncs and replaces; reads with `weights_only=True` only.

    What is frozen for good is written once, to a file of its own that every checkpoint names:
    written anew with each of them it would cost more than training a head on stored features.
    `complete` puts it back where training has ended. An epoch that is best and last is written
    once, under two names.
    """

    def __init__(self, frozen: Collection[str] = ()) -> None:
        """State what never changes.

        Args:
            frozen: Names in the state dict.
        """
        super().__init__()
        self.frozen = frozenset(frozen)
        self.kept: dict[Path, str] = {}  # folder -> digest of what its file holds
        self.written: tuple[Any, Path] | None = (
            None  # the last checkpoint: when it was taken, and its file
        )

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401, ARG002 - Lightning's signature
    ) -> None:
        """Write a checkpoint, or give the one that was just written a second name where it holds the same moment."""
        path = Path(path)
        moment = (
            [checkpoint.get(key) for key in ("epoch", "global_step", "loops")],
            frozenset(checkpoint),
        )
        if (
            self.written is not None
            and self.written[0] == moment
            and self.written[1].parent == path.parent
        ):
            link_atomically(self.written[1], path)
            return
        state = checkpoint["state_dict"]
        if self.frozen:
            digest = self._keep_frozen(
                {name: state[name] for name in state if name in self.frozen}, path.parent
            )
            state = {name: value for name, value in state.items() if name not in self.frozen}
            checkpoint = {
                **checkpoint,
                "state_dict": state,
                "thaw": {**checkpoint["thaw"], "frozen": digest},
            }
        write_atomically(path, lambda temporary: torch.save(checkpoint, temporary))
        self.written = moment, path  # only now: a write that failed left no file to link to

    def _keep_frozen(self, weights: dict[str, torch.Tensor], folder: Path) -> str:
        """Have the frozen weights in their file, which a run that goes on finds there; returns their digest."""
        if folder not in self.kept:
            digest, path = digest_of_tensors(weights.values(), list(weights)), folder / _FROZEN
            if _digest_in(path) != digest:
                content = {"state_dict": weights, "thaw": {"format": _FORMAT, "frozen": digest}}
                write_atomically(path, lambda temporary: torch.save(content, temporary))
            self.kept[folder] = digest
        return self.kept[folder]

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = None,  # noqa: ARG002 - weights go to the CPU first
        weights_only: bool | None = None,  # noqa: ARG002, FBT001 - never anything else
    ) -> dict[str, Any]:
        """Read a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(Path(path))


def _digest_in(path: Path) -> str | None:
    """Of the frozen weights in their file; None where it is missing or damaged, and is to be written anew."""
    try:
        digest: str = _read(path)["thaw"]["frozen"]
    except CheckpointError:
        return None
    return digest


def complete(folders: Iterable[Path]) -> None:
    """Make all checkpoints of a run whole in themselves, and remove the file that they shared.

    Args:
        folders: Those that hold checkpoints.
    """
    for folder in folders:
        written: dict[int, Path] = {}  # inode -> its first name
        for path in sorted(folder.glob("*.ckpt")):
            if path.name == _FROZEN or "frozen" not in _read(path)["thaw"]:
                continue
            file = path.stat().st_ino
            if file in written:
                link_atomically(written[file], path)
                continue
            whole = load_checkpoint(path)
            write_atomically(path, lambda temporary, whole=whole: torch.save(whole, temporary))  # type: ignore[misc]
            written[file] = path
        (folder / _FROZEN).unlink(missing_ok=True)


def _check_sums(path: Path) -> None:
    """Hold every part of the archive against its checksum, which torch itself does not look at."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        msg = f"{damaged} does not match its checksum"
        raise zipfile.BadZipFile(msg)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU, with what its folder keeps for it.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        CheckpointError: If the file is missing, damaged, or not one that Thaw wrote.
    """
    checkpoint = _read(path)
    if path.name == _FROZEN:
        msg = f"{path} holds frozen weights alone, for the checkpoints beside it; ckpt_path takes best.ckpt or last.ckpt"
        raise CheckpointError(msg)
    thaw = checkpoint["thaw"]
    if "frozen" not in thaw:
        return translate_checkpoint(checkpoint)
    shared = path.parent / _FROZEN
    if not shared.is_file() or (kept := _read(shared))["thaw"]["frozen"] != thaw["frozen"]:
        msg = f"{path} needs the frozen weights of its run, which {shared} {'does not hold' if shared.is_file() else 'lacks'}; "
        raise CheckpointError(msg + "a run that ended has whole checkpoints; else copy both files")
    whole = {key: value for key, value in thaw.items() if key != "frozen"}
    state = {**kept["state_dict"], **checkpoint["state_dict"]}
    return translate_checkpoint({**checkpoint, "state_dict": state, "thaw": whole})


def _read(path: Path) -> dict[str, Any]:
    """Read one file; raises `CheckpointError` as `load_checkpoint` says."""
    if not path.is_file():
        msg = f"{path}: no such checkpoint; ckpt_path takes last (with hydra.run.dir=RUN) or the path of a .ckpt file"
        raise CheckpointError(msg)
    try:
        _check_sums(path)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises many kinds: RuntimeError, UnpicklingError, EOFError, ...
        reason = brief(error)
        msg = f"{path} is damaged or not a checkpoint of Thaw ({reason}); take another one, or train again"
        raise CheckpointError(msg) from error
    if not isinstance(checkpoint, dict) or checkpoint.get("thaw", {}).get("format") != _FORMAT:
        msg = f"{path} is not a checkpoint of Thaw; ckpt_path takes best.ckpt or last.ckpt of a run folder"
        raise CheckpointError(msg)
    return checkpoint
