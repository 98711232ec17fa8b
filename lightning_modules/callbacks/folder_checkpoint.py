"""Checkpoints of a run folder, which may be moved before the run is resumed."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class FolderCheckpoint(ModelCheckpoint):
    """A `ModelCheckpoint` that keeps the best score when a run resumes in a moved folder.

    Lightning discards the score when the path has changed, so the next epoch would replace a better
    checkpoint. If the folder does not contain the best checkpoint, because it belongs to another
    run, the score is discarded here too.
    """

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
