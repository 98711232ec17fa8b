"""Checkpoints of a run folder: a run resumes after a complete epoch, also in a moved folder."""

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint


class FolderCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that keeps the best score when a run resumes in a moved folder.

    Lightning discards the score when the path has changed, so the next epoch would replace a better
    checkpoint. If the folder does not contain the best checkpoint, because it belongs to another
    run, the score is discarded here too.

    `max_steps`, `max_time` or early stopping may end a run within an epoch. A resumed run trains
    that epoch again, from its start. Its last checkpoint is therefore that of the last complete
    epoch, and the incomplete epoch does not replace a best checkpoint that the resumed run needs.
    """

    _stopping = False  # whether the validation takes place because the run stops

    def on_validation_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Remember whether the validation takes place because the run stops."""
        super().on_validation_start(trainer, pl_module)
        self._stopping = trainer.should_stop

    def on_validation_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save the checkpoint of a validation within an epoch, if one is monitored there."""
        if trainer.is_last_batch or not self._stopping or not self.best_model_path:
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Save the checkpoint of a complete epoch; the best one also of a first, incomplete one."""
        first_best = self.monitor is not None and not self.best_model_path
        if trainer.is_last_batch or first_best:
            super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the score and the paths; every path is changed to this folder."""
        folder = Path(str(self.dirpath))

        def in_folder(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        if not Path(in_folder(state_dict["best_model_path"])).is_file():
            return
        moved = {
            key: in_folder(state_dict[key])
            for key in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        scores = {in_folder(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath}
        )
