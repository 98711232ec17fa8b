"""Options of the commands, with their defaults and help texts. Imports no large library."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from datamodules.reading.formats import TableFormat
from keras_bert.errors import KerasBertError


def _option(default: Any, text: str, **more: Any) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Options shared by pretraining and fine-tuning.

    Raises:
        KerasBertError: If a value is out of range.
    """

    out: str | None = _option(None, "run folder (default: runs/keras_<command>/<date_time>)")
    model: str | None = _option(
        None,
        "BERT to start from: a run folder, a .keras file, a folder with safetensors, "
        "or NAME[@REVISION] on the Hugging Face Hub",
    )
    random_weights: bool = _option(
        default=False, text="take the sizes and the tokenizer of --model, not its weights"
    )
    tokenizer: str | None = _option(
        None,
        "folder with tokenizer.json or vocab.txt (default: the tokenizer of --model; without "
        "--model, one trained on the training text)",
    )
    clean_links: bool = _option(
        default=True,
        text="replace links and @names with the words url and user; ignored for the tokenizer of a "
        "keras_bert run in --model, which keeps its own setting",
    )
    vocab_size: int = _option(8000, "maximum vocabulary size of a tokenizer trained in this run")
    maxlen: int = _option(
        128,
        "maximum text length of a new model in tokens; longer texts are split by pretrain and "
        "truncated by finetune",
    )
    hidden_size: int = _option(256, "hidden size of a new model")
    num_layers: int = _option(4, "encoder blocks of a new model")
    num_att_heads: int = _option(4, "attention heads per block of a new model")
    intermediate_size: int = _option(1024, "width of the feed-forward networks of a new model")
    drop_rate: float = _option(0.1, "dropout of a new model, 0..1")
    batch_size: int = _option(32, "texts per step, over all devices")
    weight_decay: float = _option(0.01, "weight decay of AdamW, for matrices and tables only")
    warmup: float = _option(0.1, "fraction of all steps for learning-rate warm-up, 0..1")
    clip: float = _option(1.0, "maximum global norm of the gradients")
    precision: Literal["float32", "mixed_bfloat16"] = _option(
        "float32", "precision of the computation; weights stay float32"
    )
    jit: Literal["auto", "on", "off"] = _option(
        "auto",
        "compile steps with XLA; auto: only on a GPU, with --no-deterministic and --strategy none",
    )
    strategy: Literal["none", "mirrored"] = _option(
        "none",
        "mirrored: split each batch among all GPUs of this machine; dropout uses the same mask on "
        "each GPU",
    )
    epochs: int = _option(3, "passes over the training data")
    patience: int = _option(
        0, "stop after this many epochs without a better validation metric; 0: never"
    )
    seed: int = _option(1, "seed of weights, data order, masks and dropout")
    deterministic: bool = _option(
        default=True, text="use deterministic operations; equal seeds result in identical metrics"
    )
    tensorboard: bool = _option(default=True, text="write tensorboard/ in the run folder")
    wandb: bool = _option(default=False, text="log to Weights & Biases; offline without an API key")
    resume: str | None = _option(None, "run folder to resume, with the settings saved in it")

    def __post_init__(self) -> None:
        """Raise `KerasBertError` for invalid values and combinations."""
        for each in fields(self):
            value, lowest = (
                getattr(self, each.name),
                0 if each.name in {"seed", "patience", "gru_units"} else 1,
            )
            if each.type in {int, "int"} and value < lowest:
                self.raise_invalid_option(each.name, f"give {lowest} or more")
        for name in ("drop_rate", "warmup", "dropout"):
            if not 0 <= getattr(self, name, 0) < 1:
                self.raise_invalid_option(name, "give 0 or more and less than 1")
        for name in ("lr", "clip", "bert_lr"):
            if not getattr(self, name, 1) > 0:
                self.raise_invalid_option(name, "give more than 0")
        if self.weight_decay < 0:
            self.raise_invalid_option("weight_decay", "give 0 or more")
        if self.jit == "on" and (self.deterministic or self.strategy == "mirrored"):
            self.raise_invalid_option(
                "jit",
                "XLA works only on one device and without determinism; add --no-deterministic and "
                "leave out --strategy mirrored",
            )
        if self.random_weights and not self.model:
            self.raise_invalid_option("random_weights", "name the --model that provides the sizes")

    def raise_invalid_option(self, name: str, advice: str) -> None:
        """Raise `KerasBertError` with the option, its value and the advice."""
        value = getattr(self, name)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        msg = f"--{name.replace('_', '-')} {shown}: {advice}"
        raise KerasBertError(msg)


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Options of the commands that read tables."""

    text_column: str = _option("text", "column of the texts in tables")
    delimiter: str | None = _option(
        None, "character between two fields of a table (default: found in the file)"
    )
    quoting: Literal["auto", "csv", "none"] = _option(
        "auto", "csv, or none if quotes are part of the texts; auto: found in the file"
    )
    encoding: str | None = _option(
        None, "Python's name of the files' encoding (default: found in the file)"
    )

    @property
    def table_format(self) -> TableFormat:
        """Encoding, delimiter and quoting, as far as they are set."""
        return TableFormat(
            self.encoding,
            self.delimiter,
            None if self.quoting == "auto" else self.quoting,
            "--",
        )


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(TableSettings, TrainingSettings):
    """Options of `python -m keras_bert pretrain`."""

    text: tuple[str, ...] = _option(
        (),
        "files to train on: .txt (one text per line, an empty line between documents) or tables "
        "(.csv, .tsv, .jsonl, .parquet); without files, sample texts",
    )
    val_text: tuple[str, ...] = _option(
        (), "files to validate on (default: one twentieth of the documents of --text)"
    )
    nsp: bool = _option(default=False, text="also train next-sentence prediction")
    mask_rate: float = _option(0.15, "fraction of the tokens to predict, 0..1")
    epochs: int = _option(10, "passes over the training data")
    lr: float = _option(5e-4, "highest learning rate")

    def __post_init__(self) -> None:
        """Raise `KerasBertError` for invalid values and combinations."""
        super().__post_init__()
        if not 0 < self.mask_rate < 1:
            self.raise_invalid_option("mask_rate", "give more than 0 and less than 1")
        if self.val_text and not self.text:
            self.raise_invalid_option("val_text", "give --text too")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TableSettings, TrainingSettings):
    """Options of `python -m keras_bert finetune`."""

    train: str | None = _option(
        None, "table to train on: .csv, .tsv, .jsonl or .parquet; without one, sample texts"
    )
    val: str | None = _option(
        None, "table for choosing the best epoch (default: one tenth of --train)"
    )
    test: str | None = _option(None, "table to predict once, at the end")
    label_column: str = _option("label", "column of the labels")
    freeze: bool = _option(default=False, text="train the head only; dropout in the BERT is off")
    gru_units: int = _option(
        0, "units per direction of a BiGRU over all tokens; 0: a linear head on the pooled output"
    )
    dropout: float = _option(0.1, "dropout before the output layer, 0..1")
    lr: float = _option(1e-3, "highest learning rate of the head")
    bert_lr: float = _option(1e-4, "highest learning rate of the BERT")

    def __post_init__(self) -> None:
        """Raise `KerasBertError` for invalid values and combinations."""
        super().__post_init__()
        for name in ("val", "test"):
            if getattr(self, name) and not self.train:
                self.raise_invalid_option(name, "give --train too")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(TableSettings):
    """Options of `python -m keras_bert predict`."""

    run: str = _option("", "run folder of a finetune run", positional=True)
    input: tuple[str, ...] = _option(
        (),
        "files: .txt (one text per line), .csv, .tsv, .jsonl or .parquet; without files, samples",
        positional=True,
    )
    out: str | None = _option(None, "output file: .csv or .parquet (default: predictions.csv)")
    batch_size: int = _option(64, "texts per batch")

    def __post_init__(self) -> None:
        """Raise `KerasBertError` for invalid values."""
        if self.out and Path(self.out).suffix not in {".csv", ".parquet"}:
            msg = f"--out {self.out}: end the name in .csv or .parquet"
            raise KerasBertError(msg)
        if self.batch_size < 1:
            msg = f"--batch-size {self.batch_size}: give 1 or more"
            raise KerasBertError(msg)


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Options of `python -m keras_bert convert`."""

    run: str = _option("", "run folder or .keras file", positional=True)
    out: str = _option(
        "", "folder to write config.json, model.safetensors and the tokenizer to", required=True
    )


def run_path(settings: TrainingSettings, command: str, stamp: str) -> Path:
    """Return the run folder: `out` if it is given, else runs/keras_<command>/<stamp>."""
    return Path(settings.out) if settings.out else Path("runs") / f"keras_{command}" / stamp
