"""Checkpoints that belong to their run folder, wherever it lies now."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint


class FolderCheckpoint(ModelCheckpoint):
    """Remembers the best score when a run goes on in a folder that was moved.

    Lightning forgets the score once the path has changed, and the next epoch would replace a better
    checkpoint. In the folder of another run there is no such checkpoint yet, and the score starts
    from nothing.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the score, with every path moved to this folder."""
        folder = Path(str(self.dirpath))

        def here(path: str) -> str:
            return str(folder / Path(path).name) if path else path

        if not Path(here(state_dict["best_model_path"])).is_file():
            return
        moved = {
            key: here(state_dict[key])
            for key in ("best_model_path", "kth_best_model_path", "last_model_path")
        }
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            {**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath}
        )
