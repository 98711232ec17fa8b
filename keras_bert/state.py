"""What the next epoch of a training needs, in a file."""

from pathlib import Path

import keras
import numpy as np

from keras_bert.errors import KerasBertError
from keras_bert.optimization import BertAdamW
from keras_bert.run_folder import KerasRunFolder
from run_folders.run_folder import write_atomically


class State:
    """Everything that the next epoch needs, in one file without code: weights, moments, step, states of dropout, epoch."""

    def __init__(self, network: keras.Model, optimizer: BertAdamW, folder: KerasRunFolder) -> None:
        self.folder = folder
        self.variables = {"network": network.variables, "optimizer": optimizer.variables}

    def save(self, epoch: int) -> None:
        """Write the state behind an epoch."""
        arrays = {
            f"{part}/{i:05d}": keras.ops.convert_to_numpy(variable)
            for part, variables in self.variables.items()
            for i, variable in enumerate(variables)
        }

        def write(path: Path) -> None:
            with path.open("wb") as file:  # a name would get another suffix
                np.savez(file, allow_pickle=False, epoch=np.array(epoch), **arrays)

        write_atomically(self.folder.last_checkpoint, write)

    def restore(self) -> int:
        """Take the state up.

        Returns:
            The epoch to go on with; 0 where there is no state.

        Raises:
            KerasBertError: If the file is damaged or of another model.
        """
        path = self.folder.last_checkpoint
        if not path.is_file():
            return 0
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
        except Exception as error:  # zipfile, zlib and numpy each raise their own
            msg = f"{path} cannot be resumed from: {error}; train again into another folder"
            raise KerasBertError(msg) from error
