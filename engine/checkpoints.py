"""Checkpoints: written atomically, and loaded without running code from the file."""

import json
import os
import zipfile
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from datamodules.batching.stored_features import digest_of_tensors
from engine.old_names import translate_checkpoint
from run_folders.errors import UserError, brief, loading_reason
from run_folders.files import link_atomically, write_atomically
from run_folders.memory import check_archive
from run_folders.nested import nodes
from run_folders.untrusted import DamagedFileError, damaged
from run_folders.value_types import type_fault

_FORMAT = 1
_FROZEN = "frozen.ckpt"
_ADVICE = (
    "ckpt_path takes the path of a run's best.ckpt or last.ckpt, or last (with hydra.run.dir=RUN)"
)


class _Thaw(TypedDict):
    """The part of a checkpoint that only Thaw writes."""

    format: int
    frozen: NotRequired[str]  # digest of the frozen weights
    backbone: NotRequired[str]  # JSON


class CheckpointError(UserError, ValueError):
    """A checkpoint that is missing, damaged or not written by Thaw."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoint plugin of Lightning with atomic writes. It always reads with `weights_only=True`.

    A checkpoint is written to a temporary file, which is fsynced and then replaces the target.
    Weights that never train are written once, to a file that the checkpoints of a folder share.
    Writing them with every checkpoint would take longer than training a head on stored features.
    `make_self_contained` adds them to the checkpoints after training. If an epoch is both best and
    last, its checkpoint is written once and linked under the second name.
    """

    def __init__(self, frozen: Collection[str] = ()) -> None:
        """Set the weights that never change.

        Args:
            frozen: Their names in the state dict.
        """
        super().__init__()
        self.frozen = frozenset(frozen)
        self.digests: dict[Path, str] = {}  # folder -> digest of the weights in its shared file
        # The last checkpoint that was written: its training progress and its file.
        self.written: tuple[Any, Path] | None = None

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | os.PathLike[str],
        storage_options: Any | None = None,  # noqa: ANN401, ARG002 - Lightning's signature
    ) -> None:
        """Write a checkpoint, or link the one written before if it has the same progress."""
        path = Path(path)
        # The keys count too: a checkpoint of the weights only has fewer.
        progress = [checkpoint.get(key) for key in ("epoch", "global_step", "loops")]
        state = (path.parent, progress, frozenset(checkpoint))
        if self.written is not None and self.written[0] == state:
            link_atomically(self.written[1], path)
            return
        if self.frozen:
            checkpoint = self._without_frozen(checkpoint, path.parent)
        write_atomically(path, lambda temporary: torch.save(checkpoint, temporary))
        self.written = state, path  # only now: a failed write leaves no file to link to

    def _without_frozen(self, checkpoint: dict[str, Any], folder: Path) -> dict[str, Any]:
        """Write the frozen weights to the folder's file; return the checkpoint without them."""
        state = checkpoint["state_dict"]
        digest = self._keep_frozen({n: w for n, w in state.items() if n in self.frozen}, folder)
        return {
            **checkpoint,
            "state_dict": {n: w for n, w in state.items() if n not in self.frozen},
            "thaw": {**checkpoint["thaw"], "frozen": digest},
        }

    def _keep_frozen(self, weights: dict[str, torch.Tensor], folder: Path) -> str:
        """Write the frozen weights unless the file has them already, and return their digest."""
        if folder not in self.digests:
            digest, path = digest_of_tensors(weights.values(), list(weights)), folder / _FROZEN
            if _digest_in(path) != digest:
                content = {"state_dict": weights, "thaw": {"format": _FORMAT, "frozen": digest}}
                write_atomically(path, lambda temporary: torch.save(content, temporary))
            self.digests[folder] = digest
        return self.digests[folder]

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Callable[..., Any] | None = None,  # noqa: ARG002 - weights go to the CPU first
        weights_only: bool | None = None,  # noqa: ARG002, FBT001 - always true
    ) -> dict[str, Any]:
        """Read a checkpoint; see `load_checkpoint`."""
        return load_checkpoint(Path(path))


def stored_backbone(checkpoint: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the values that rebuild the backbone of a checkpoint; empty for an own class.

    Args:
        checkpoint: A checkpoint of a run.
        path: Its file, for messages.

    Raises:
        CheckpointError: If they are no plain values.
    """
    try:
        backbone = json.loads(checkpoint["thaw"]["backbone"])
    except (KeyError, ValueError, RecursionError) as error:
        raise refusal(path, f"its backbone is unreadable ({brief(error)})") from error
    if not isinstance(backbone, dict):
        raise refusal(path, "its backbone is no mapping")
    if any(key.rpartition(".")[2] == "_target_" for key, _ in nodes(backbone)):
        raise refusal(path, "its backbone names a class, which only a config may do")
    return backbone


def refusal(path: Path, reason: str) -> CheckpointError:
    """Return the error for a checkpoint whose content cannot be used."""
    return CheckpointError(f"{path} is damaged: {reason}; take another one, or train again")


def _digest_in(path: Path) -> str | None:
    """Return the digest of the frozen weights in a file; None if it is missing or damaged."""
    try:
        digest: str | None = _read(path)["thaw"].get("frozen")
    except (CheckpointError, DamagedFileError):
        return None
    return digest


def make_self_contained(folders: Iterable[Path]) -> None:
    """Make all checkpoints of a run self-contained, and delete the files that they shared.

    Args:
        folders: The folders with the checkpoints.
    """
    for folder in folders:
        written: dict[int, Path] = {}  # inode -> its first path
        for path in sorted(folder.glob("*.ckpt")):
            if path.name == _FROZEN or "frozen" not in _read(path)["thaw"]:
                continue
            inode = path.stat().st_ino
            if inode in written:
                link_atomically(written[inode], path)
                continue
            whole = load_checkpoint(path)
            write_atomically(path, lambda temporary, whole=whole: torch.save(whole, temporary))  # type: ignore[misc]
            written[inode] = path
        (folder / _FROZEN).unlink(missing_ok=True)


def _verify_checksums(path: Path) -> None:
    """Compare every part of the archive with its checksum, which torch does not check."""
    with zipfile.ZipFile(path) as archive:
        part = archive.testzip()
    if part is not None:
        msg = f"{part} does not match its checksum"
        raise zipfile.BadZipFile(msg)


def _state_fault(checkpoint: dict[str, Any]) -> str:
    """Return why a checkpoint has no usable weights, or an empty string."""
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        return "state_dict is no mapping of names to tensors"
    return ""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint of Thaw onto the CPU, including the frozen weights that it shares.

    Args:
        path: The file.

    Returns:
        The content of the checkpoint.

    Raises:
        CheckpointError: If the file is missing, damaged, or not one that Thaw wrote.
    """
    checkpoint = _read(path)
    if path.name == _FROZEN:
        msg = f"{path} holds frozen weights only, for the checkpoints beside it; {_ADVICE}"
        raise CheckpointError(msg)
    thaw = checkpoint["thaw"]
    if "frozen" not in thaw:
        return translate_checkpoint(checkpoint)
    shared = path.parent / _FROZEN
    if not shared.is_file() or (kept := _read(shared))["thaw"].get("frozen") != thaw["frozen"]:
        msg = (
            f"{path} needs the frozen weights of its run, but {shared} "
            f"{'has other weights' if shared.is_file() else 'is missing'}; copy both files, "
            f"or take a checkpoint of a finished run, which has all weights"
        )
        raise CheckpointError(msg)
    own = {key: value for key, value in thaw.items() if key != "frozen"}
    state = {**kept["state_dict"], **checkpoint["state_dict"]}
    return translate_checkpoint({**checkpoint, "state_dict": state, "thaw": own})


def _read(path: Path) -> dict[str, Any]:
    """Read one file.

    Raises:
        CheckpointError: If the file is missing, damaged, or not one that Thaw wrote.
        DamagedFileError: If it unpacks to more than the free memory.
    """
    if not path.is_file():
        msg = f"{path}: no such checkpoint; {_ADVICE}"
        raise CheckpointError(msg)
    check_archive(path, "take another checkpoint, or train again")
    try:
        _verify_checksums(path)
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ...
        msg = (
            f"{path} is damaged or not a checkpoint of Thaw ({loading_reason(error)}); "
            f"take another one, or train again"
        )
        raise CheckpointError(msg) from error
    thaw = checkpoint.get("thaw") if isinstance(checkpoint, dict) else None
    if not isinstance(thaw, dict) or thaw.get("format") != _FORMAT:
        msg = f"{path} is not a checkpoint of Thaw; {_ADVICE}"
        raise CheckpointError(msg)
    fault = type_fault(thaw, _Thaw, "thaw") or _state_fault(checkpoint)
    if fault:
        raise damaged(path, fault, "take another one, or train again")
    return dict(checkpoint)
