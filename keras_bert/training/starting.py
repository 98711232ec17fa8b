"""Tokenizer, sizes and weights that a training starts from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from tokenizers import Tokenizer

from keras_bert.data.tokenizing import FILE, load_tokenizer, train_tokenizer
from keras_bert.errors import KerasBertError
from keras_bert.loading import bert_of, find_source, fresh_bert
from keras_bert.network.model import create_BERT, settings_of
from keras_bert.run_folder import KerasRunFolder
from keras_bert.settings import TrainingSettings
from run_folders.files import write_text


@dataclass(frozen=True)
class Start:
    """Tokenizer, sizes and weights that training starts from.

    Attributes:
        tokenizer: The tokenizer.
        bert: Arguments of `create_BERT`.
        weights: A BERT with the initial weights, or None for random weights.
    """

    tokenizer: Tokenizer
    bert: dict[str, Any]
    weights: keras.Model | None


def start(settings: TrainingSettings, folder: KerasRunFolder, texts: Sequence[str]) -> Start:
    """Load or create the tokenizer and the model, and write the tokenizer to the run folder.

    Args:
        settings: The options of the command.
        folder: The run folder. A resumed run takes its sizes and its tokenizer from it.
        texts: Training texts, used if a tokenizer has to be trained.

    Returns:
        The tokenizer, sizes and weights to start from.

    Raises:
        KerasBertError: If the model or the tokenizer cannot be loaded, or if they do not match.
    """
    if folder.last_checkpoint.is_file():
        return Start(
            load_tokenizer(folder.path, clean_links=False), folder.read_config()["bert"], None
        )
    source = find_source(settings.model) if settings.model else None
    if settings.tokenizer:
        tokenizer = load_tokenizer(Path(settings.tokenizer), clean_links=settings.clean_links)
    elif source:
        tokenizer = load_tokenizer(
            source.folder, clean_links=settings.clean_links and not source.ours
        )
    else:
        tokenizer = train_tokenizer(texts, settings.vocab_size, clean_links=settings.clean_links)
    write_text(folder.path / FILE, tokenizer.to_str(pretty=True))
    num_tokens = 1 + max(tokenizer.get_vocab().values())
    if source is None:
        sizes = (
            "maxlen",
            "hidden_size",
            "num_layers",
            "num_att_heads",
            "intermediate_size",
            "drop_rate",
        )
        return Start(
            tokenizer,
            {"vocab_size": num_tokens, **{name: getattr(settings, name) for name in sizes}},
            None,
        )
    bert = bert_of(source.model)
    vocab_size = settings_of(bert)["vocab_size"]
    if num_tokens > vocab_size:
        msg = (
            f"the tokenizer has {num_tokens} tokens, but {settings.model} has only {vocab_size}: "
            "give the folder of the model's own tokenizer with --tokenizer"
        )
        raise KerasBertError(msg)
    if source.missing and not settings.random_weights:
        print(
            f"{settings.model} lacks {', '.join(source.missing)}: these weights start at random",
            flush=True,
        )
    return Start(tokenizer, settings_of(bert), None if settings.random_weights else bert)


def make_bert(begun: Start) -> keras.Model:
    """Create the BERT that training starts with.

    Raises:
        KerasBertError: If the sizes are invalid.
    """
    try:  # a small model checks the sizes quickly
        create_BERT(**{**begun.bert, "vocab_size": 1, "maxlen": 1, "num_layers": 1})
    except ValueError as error:
        raise KerasBertError(str(error)) from error
    return fresh_bert(begun.bert, begun.weights)
