"""Checkpoints that belong to their run folder, wherever it lies now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint


class FolderCheckpoint(ModelCheckpoint):
    """Remembers the best score when a run goes on in a folder that was moved, and shares a file that is there already.

    Lightning forgets the score once the path has changed, and the next epoch would replace a better checkpoint. In the folder
    of another run there is no such checkpoint yet, and the score starts from nothing.
    """

    def __init__(
        self,
        *,
        twin: "tuple[FolderCheckpoint, Callable[[Path, Path], None]] | None" = None,
        **given: Any,  # noqa: ANN401 - Lightning's own arguments
    ) -> None:
        """State what is written.

        Args:
            twin: A checkpoint of the same trainer, before this one, and what gives a file a second name in place of what has
                that name. Where the twin has just been written, this one is the same file: writing weights and optimiser twice
                would take as long as many a step.
            given: See `ModelCheckpoint`.
        """
        super().__init__(**given)
        self.twin = twin

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        if self.twin is None or not self.twin[0].has_just_saved(trainer):
            super()._save_checkpoint(trainer, filepath)
            return
        twin, link = self.twin
        if trainer.is_global_zero:  # loggers are told of the best checkpoint, in the end
            link(Path(twin._last_checkpoint_saved), Path(filepath))  # noqa: SLF001 - of the same class
        trainer.strategy.barrier()
        self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, filepath

    def has_just_saved(self, trainer: lightning.Trainer) -> bool:
        """Whether the end of this epoch is what it holds; after a validation within an epoch it holds an earlier state."""
        return self._last_global_step_saved == trainer.global_step and self._should_save_on_train_epoch_end(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the score, with every path moved to this folder."""
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        if not Path(here(state_dict["best_model_path"])).is_file():
            return
        moved = {key: here(state_dict[key]) for key in ("best_model_path", "kth_best_model_path", "last_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath})
