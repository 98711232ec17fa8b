"""Checkpoints that belong to their run folder, wherever it lies now."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint


class FolderCheckpoint(ModelCheckpoint):
    """Remembers the best score when a run goes on in a folder that was moved.

    Lightning forgets it once the path has changed, and the next epoch would replace a better checkpoint. In the folder of
    another run there is no such checkpoint yet, and the score starts from nothing.
    """

    def __init__(
        self,
        *,
        twin: "FolderCheckpoint | None" = None,
        link: Callable[[Path, Path], None] | None = None,
        **given: Any,  # noqa: ANN401 - Lightning's own arguments
    ) -> None:
        """State what is written.

        Args:
            twin: A checkpoint of the same trainer, before this one. Where it has just been written, this one is the same file:
                writing weights and optimiser twice would take as long as many a step.
            link: Gives a file a second name, in place of what has that name; needed with `twin`.
            given: See `ModelCheckpoint`.
        """
        super().__init__(**given)
        self.twin, self.link = twin, link

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        if self.twin is None or self.link is None or not self.twin.has_just_saved(trainer):
            super()._save_checkpoint(trainer, filepath)
            return
        if trainer.is_global_zero:
            self.link(Path(self.twin._last_checkpoint_saved), Path(filepath))  # noqa: SLF001 - of the same class
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
