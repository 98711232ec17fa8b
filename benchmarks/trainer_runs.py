"""Training runs on tweets with Hugging Face's Trainer, as baselines of Thaw's runs."""

import argparse
import tempfile
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from benchmarks.measuring import now
from benchmarks.text_runs import ThawRun
from benchmarks.turns import Run
from datamodules.texts.batching import TokenizedTexts


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    """Token ids and labels of one text at a time, as the Trainer expects them."""

    def __init__(self, texts: TokenizedTexts) -> None:
        self.rows = [texts[i] for i in range(len(texts))]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        ids, label, _ = self.rows[position]
        return {"input_ids": ids.tolist(), "labels": label}


class FrozenClassifier(nn.Module):
    """A frozen encoder and a head, as a user of the Trainer would write them.

    The architecture is Thaw's; the GRU runs over packed sequences. Thaw has one logit for two
    classes. Here the other class has the constant logit 0, so the cross-entropy is the same.
    """

    def __init__(self, backbone: str, *, recurrent: bool, hidden: int = 128) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(
            backbone, dtype=torch.float32, add_pooling_layer=False, trust_remote_code=False
        )
        for parameter in self.encoder.parameters():
            parameter.requires_grad = False
        self.recurrent = recurrent
        if not recurrent:
            self.output = nn.Linear(self.encoder.config.hidden_size, 1)
            return
        self.gru = nn.GRU(
            self.encoder.config.hidden_size, hidden, batch_first=True, bidirectional=True
        )
        self.output = nn.Linear(2 * hidden, 1)

    def train(self, mode: bool = True) -> "FrozenClassifier":  # noqa: FBT001, FBT002 - torch's own signature
        """Set the mode but keep dropout of the frozen encoder off; the Trainer would turn it on."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Return the logits [B, 2] and, with labels, the loss."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        if self.recurrent:
            lengths = attention_mask.sum(1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(
                states.float(), lengths, batch_first=True, enforce_sorted=False
            )
            vectors = torch.cat(list(self.gru(packed)[1]), dim=-1)
        else:
            mask = attention_mask[..., None]
            vectors = (states * mask).sum(1) / mask.sum(1)
        logits = nn.functional.pad(self.output(vectors), (1, 0))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class BaselineRun(Run):
    """A run of Hugging Face's Trainer on the same token ids."""

    def __init__(
        self,
        given: argparse.Namespace,
        lr: float,
        *,
        epochs: int,
        measured: int | None = None,
        tuned: bool,
        head: Literal["tuned", "linear", "bigru"] = "tuned",
        split: str = "val",
    ) -> None:
        """Store what to run.

        Args:
            given: Command-line arguments of the benchmark.
            lr: Learning rate of all trainable parameters.
            epochs: Number of epochs of the whole work.
            measured: Number of epochs that are trained, by default all. The time is extrapolated to
                `epochs`.
            tuned: Whether to use bfloat16 and batches grouped by length.
            head: `linear` or `bigru` on the frozen encoder; `tuned` trains all of the library's own
                classifier.
            split: Split that is evaluated at the end.
        """
        self.given, self.lr, self.tuned, self.head, self.split = given, lr, tuned, head, split
        self.epochs, self.measured = epochs, measured or epochs
        self.place = tempfile.TemporaryDirectory(prefix="thaw-benchmark-")
        self.trainer: Any = None

    @cached_property
    def texts(self) -> dict[str, Texts]:
        """Split -> the texts as Thaw tokenises them."""
        run = ThawRun("minilm_finetune", self.given, {"data.max_length": 128})
        run.prepare(1)
        return {split: Texts(run.datamodule.tokenized[split]) for split in ("train", self.split)}

    def prepare(self, seed: int, steps: int | None = None) -> nn.Module:
        """Load the weights, build the Trainer and return the network."""
        set_seed(seed)
        tuning: dict[str, Any] = (
            {"train_sampling_strategy": "group_by_length", "bf16": True} if self.tuned else {}
        )
        options = TrainingArguments(
            output_dir=self.place.name,
            per_device_train_batch_size=32,
            per_device_eval_batch_size=64,
            num_train_epochs=self.measured,
            max_steps=-1 if steps is None else steps,
            learning_rate=self.lr,
            weight_decay=0.01,
            warmup_steps=0.1,
            seed=seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=self.given.device == "cpu",
            **tuning,
        )
        self.trainer = Trainer(
            model=self._network(),
            args=options,
            train_dataset=self.texts["train"],
            eval_dataset=self.texts[self.split],
            data_collator=DataCollatorWithPadding(
                AutoTokenizer.from_pretrained(self.given.backbone, trust_remote_code=False)
            ),
            compute_metrics=_accuracy,
        )
        network: nn.Module = self.trainer.model
        return network

    def _network(self) -> nn.Module:
        backbone = self.given.backbone
        if self.head != "tuned":
            return FrozenClassifier(backbone, recurrent=self.head == "bigru")
        network: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            backbone, num_labels=2, dtype=torch.float32, trust_remote_code=False
        )
        return network

    def train(self) -> float:
        """Train, evaluate once and return the accuracy, 0..1."""
        start = now()
        self.trainer.train()
        trained = now() - start
        accuracy = float(self.trainer.evaluate()["eval_accuracy"])
        taken = now() - start
        self.share = taken / (taken + trained * (self.epochs / self.measured - 1))
        return accuracy


def _accuracy(prediction: Any) -> dict[str, float]:  # noqa: ANN401 - EvalPrediction
    return {
        "accuracy": float(
            (np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean()
        )
    }
