"""Prediction of new texts with a run folder of fine-tuning."""

from pathlib import Path

import numpy as np
import pandas as pd

from keras_bert.data.batching import Padding
from keras_bert.data.samples import sample_labelled
from keras_bert.data.texts import read_texts
from keras_bert.data.tokenizing import load_tokenizer
from keras_bert.errors import KerasBertError
from keras_bert.loading import load_network
from keras_bert.network.model import settings_of
from keras_bert.network.tasks import Classifier
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import PredictSettings
from keras_bert.training.classification_data import prediction_table, text_data
from keras_bert.training.devices import MULTIPLE
from keras_bert.training.starting import Start
from run_folders.csv_text import csv_writer
from run_folders.files import write_atomically

_SAMPLE_ROWS = 20


def predict(settings: PredictSettings) -> pd.DataFrame:
    """Predict texts with the best checkpoint of a finetune run.

    Args:
        settings: The options of the command.

    Returns:
        One row per text, in input order, with the columns prediction, probability_<class> and text.

    Raises:
        KerasBertError: If the folder is not a finetune run with a checkpoint.
        DataError: If a file cannot be read.
    """
    folder = KerasRunFolder(Path(settings.run))
    config = folder.read_config()
    if config["command"] != "finetune" or not folder.best_checkpoint.is_file():
        fault = "is a pretrain run" if config["command"] != "finetune" else "has no checkpoint yet"
        msg = f"{folder.path} {fault}: give the folder of a finetune run"
        raise KerasBertError(msg)
    files = settings.input
    texts = (
        read_texts(files, settings.text_column, settings.table_format)
        if files
        else sample_labelled(config["seed"], _SAMPLE_ROWS, split=3).texts
    )
    model = load_network(folder.best_checkpoint)
    if not isinstance(model, Classifier):
        msg = f"{folder.best_checkpoint} contains no classifier: give the folder of a finetune run"
        raise KerasBertError(msg)
    begun = Start(load_tokenizer(folder.path, clean_links=False), settings_of(model.bert), None)
    probabilities = text_data(
        texts, np.zeros(len(texts)), begun, Padding(MULTIPLE, begun.bert["maxlen"])
    ).probabilities(model, settings.batch_size)
    return prediction_table(probabilities, config["classes"], texts)


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write predictions as CSV or Parquet.

    Args:
        table: Result of `predict`.
        path: The file; its suffix, .csv or .parquet, selects the format.
    """

    def write(temporary: Path) -> None:
        if path.suffix != ".csv":
            table.to_parquet(temporary, index=False)
            return
        with temporary.open("w", encoding="utf-8", newline="") as file:
            csv_writer(file).writerows([table.columns, *table.itertuples(index=False)])

    write_atomically(path.resolve(), write)
