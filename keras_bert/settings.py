"""What can be set, its defaults and what the command line says of it. Imports nothing heavy."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from keras_bert.errors import KerasBertError


def _option(default: Any, text: str, **more: Any) -> Any:  # noqa: ANN401
    return field(default=default, metadata={"help": text, **more})


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What pretraining and fine-tuning share.

    Raises:
        KerasBertError: If a value is out of range.
    """

    out: str | None = _option(None, "run folder (default: runs/keras_<command>/<date_time>)")
    model: str | None = _option(
        None,
        "start from this BERT: a run folder, a .keras file, a folder with safetensors, or NAME[@REVISION] on the hub",
    )
    random_weights: bool = _option(
        default=False, text="of --model take sizes and tokenizer, not the weights"
    )
    tokenizer: str | None = _option(
        None,
        "folder with tokenizer.json or vocab.txt (default: the model's own; without a model, trained on the training text)",
    )
    clean_links: bool = _option(
        default=True,
        text="write links and @names as the words url and user, in a tokenizer trained here or not of Keras's",
    )
    vocab_size: int = _option(8000, "most tokens of a tokenizer trained here")
    maxlen: int = _option(128, "longest text in tokens, for a model made here; longer ones are cut")
    hidden_size: int = _option(256, "of a model made here")
    num_layers: int = _option(4, "of a model made here")
    num_att_heads: int = _option(4, "of a model made here")
    intermediate_size: int = _option(1024, "of a model made here")
    drop_rate: float = _option(0.1, "dropout of a model made here, 0..1")
    batch_size: int = _option(32, "texts a step, of all devices together")
    weight_decay: float = _option(0.01, "of AdamW, on matrices and tables only")
    warmup: float = _option(0.1, "share of all steps in which the learning rate rises, 0..1")
    clip: float = _option(1.0, "largest norm of all gradients together")
    precision: Literal["float32", "mixed_bfloat16"] = _option(
        "float32", "of the arithmetic; weights stay float32"
    )
    jit: Literal["auto", "on", "off"] = _option(
        "auto", "compile steps with XLA; auto: on a GPU, where it wins, with --no-deterministic"
    )
    strategy: Literal["none", "mirrored"] = _option(
        "none",
        "mirrored: share each batch among all GPUs of this machine (which drop the same places of their shares)",
    )
    epochs: int = _option(3, "passes over the training data")
    patience: int = _option(
        0, "stop after so many epochs without a better validation metric; 0: never"
    )
    seed: int = _option(1, "of weights, order, masks and dropout")
    deterministic: bool = _option(default=True, text="the same curve to the bit for the same seed")
    tensorboard: bool = _option(default=True, text="write tensorboard/ in the run folder")
    wandb: bool = _option(
        default=False, text="log to Weights & Biases, offline where there is no key"
    )
    resume: str | None = _option(None, "go on with this run folder, with its own settings")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        for each in fields(self):
            value, lowest = (
                getattr(self, each.name),
                0 if each.name in {"seed", "patience", "gru_units"} else 1,
            )
            if each.type in {int, "int"} and value < lowest:
                self.raise_fault(each.name, f"give {lowest} or more")
        for name in ("drop_rate", "warmup", "dropout"):
            if not 0 <= getattr(self, name, 0) < 1:
                self.raise_fault(name, "give 0 or more and less than 1")
        for name in ("lr", "clip", "bert_lr"):
            if not getattr(self, name, 1) > 0:
                self.raise_fault(name, "give more than 0")
        if self.weight_decay < 0:
            self.raise_fault("weight_decay", "give 0 or more")
        if self.jit == "on" and (self.deterministic or self.strategy == "mirrored"):
            self.raise_fault(
                "jit",
                "XLA compiles no deterministic steps and none of several devices; add --no-deterministic",
            )
        if self.random_weights and not self.model:
            self.raise_fault("random_weights", "name the --model whose sizes are meant")

    def raise_fault(self, name: str, advice: str) -> None:
        """Raise the error about one setting."""
        value = getattr(self, name)
        shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
        msg = f"--{name.replace('_', '-')} {shown}: {advice}"
        raise KerasBertError(msg)


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(TrainingSettings):
    """Of `python -m keras_bert pretrain`."""

    text: tuple[str, ...] = _option(
        (),
        "files to learn from: .txt (a text a line, an empty line between documents), or tables as below (none: a sample)",
    )
    val_text: tuple[str, ...] = _option(
        (), "files to validate on (default: a twentieth of the documents)"
    )
    text_column: str = _option(
        "text", "column of the texts in tables (.csv, .tsv, .jsonl, .parquet)"
    )
    nsp: bool = _option(default=False, text="next-sentence prediction too")
    mask_rate: float = _option(0.15, "share of the tokens that is to be guessed, 0..1")
    epochs: int = _option(10, "passes over the training data")
    lr: float = _option(5e-4, "highest learning rate")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        if not 0 < self.mask_rate < 1:
            self.raise_fault("mask_rate", "give more than 0 and less than 1")
        if self.val_text and not self.text:
            self.raise_fault("val_text", "give --text too")


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TrainingSettings):
    """Of `python -m keras_bert finetune`."""

    train: str | None = _option(
        None, "table to learn from: .csv, .tsv, .jsonl or .parquet (none: a sample)"
    )
    val: str | None = _option(None, "table that chooses the epoch (default: a tenth of --train)")
    test: str | None = _option(None, "table that is predicted once, at the end")
    text_column: str = _option("text", "column of the texts")
    label_column: str = _option("label", "column of the labels")
    freeze: bool = _option(default=False, text="train the head alone; the BERT's dropout is off")
    gru_units: int = _option(
        0, "units a direction of a BiGRU that reads every token; 0: the pooled output is read"
    )
    dropout: float = _option(0.1, "before the output layer, 0..1")
    lr: float = _option(1e-3, "highest learning rate of the head")
    bert_lr: float = _option(1e-4, "highest learning rate of the BERT")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        for name in ("val", "test"):
            if getattr(self, name) and not self.train:
                self.raise_fault(name, "give --train too")


@dataclass(frozen=True, kw_only=True)
class PredictSettings:
    """Of `python -m keras_bert predict`."""

    run: str = _option("", "run folder of finetune", positional=True)
    input: tuple[str, ...] = _option(
        (),
        "files: .txt (a text a line), .csv, .tsv, .jsonl, .parquet (none: a sample)",
        positional=True,
    )
    text_column: str = _option("text", "column of the texts in tables")
    out: str | None = _option(None, "where to: .csv or .parquet (default: predictions.csv)")
    batch_size: int = _option(64, "texts at once")

    def __post_init__(self) -> None:
        """Refuse what cannot be meant, before anything is predicted."""
        if self.out and Path(self.out).suffix not in {".csv", ".parquet"}:
            msg = f"--out {self.out}: end the name in .csv or .parquet"
            raise KerasBertError(msg)
        if self.batch_size < 1:
            msg = f"--batch-size {self.batch_size}: give 1 or more"
            raise KerasBertError(msg)


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """Of `python -m keras_bert convert`."""

    run: str = _option("", "run folder, or .keras file", positional=True)
    out: str = _option(
        "", "folder to write config.json, model.safetensors and the tokenizer to", required=True
    )


def run_path(settings: TrainingSettings, command: str, stamp: str) -> Path:
    """Where the run's record goes."""
    return Path(settings.out) if settings.out else Path("runs") / f"keras_{command}" / stamp
