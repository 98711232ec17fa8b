"""Checkpoint file with the state needed to resume training."""

from pathlib import Path

import keras
import numpy as np

from keras_bert.errors import KerasBertError
from keras_bert.run_folder import KerasRunFolder
from keras_bert.training.optimization import BertAdamW
from run_folders.files import write_atomically
from run_folders.memory import check_archive


class State:
    """State of a training run in one .npz file without pickled objects.

    It contains the weights, the optimizer's moments and step, the states of the dropout generators
    and the epoch.
    """

    def __init__(self, network: keras.Model, optimizer: BertAdamW, folder: KerasRunFolder) -> None:
        self.folder = folder
        self.variables = {"network": network.variables, "optimizer": optimizer.variables}

    def save(self, epoch: int) -> None:
        """Write the state after an epoch."""
        arrays = {
            f"{part}/{i:05d}": keras.ops.convert_to_numpy(variable)
            for part, variables in self.variables.items()
            for i, variable in enumerate(variables)
        }

        def write(path: Path) -> None:
            with path.open("wb") as file:  # given a path, numpy would append .npz
                np.savez(file, allow_pickle=False, epoch=np.array(epoch), **arrays)

        write_atomically(self.folder.last_checkpoint, write)

    def restore(self) -> int:
        """Load the state into the network and the optimizer.

        Returns:
            The epoch to continue with; 0 if there is no file.

        Raises:
            KerasBertError: If the file is damaged or belongs to another model.
        """
        path = self.folder.last_checkpoint
        if not path.is_file():
            return 0
        check_archive(path, "start a new run in another folder")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            for part, variables in self.variables.items():
                shapes = [arrays[f"{part}/{i:05d}"].shape for i in range(len(variables))]
                if shapes != [tuple(variable.shape) for variable in variables]:
                    raise ValueError(part)
            for part, variables in self.variables.items():
                for i, variable in enumerate(variables):
                    variable.assign(arrays[f"{part}/{i:05d}"])
            return int(arrays["epoch"]) + 1
        except Exception as error:  # zipfile, zlib and numpy raise different errors
            msg = f"{path} cannot be resumed from: {error}; start a new run in another folder"
            raise KerasBertError(msg) from error
