"""Training on stored features equals training without them, in batches and metrics.

Also tested: what the cache key covers, and when features are not cached.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from datamodules.batching import order as batch_order
from datamodules.image_samples import SAMPLE_CLASSES, SampleImagesDataModule
from datamodules.samples import SampleTextDataModule
from engine.build import RunObjects
from engine.config.composing.paths import cache_folder
from engine.config.errors import ConfigError
from engine.config.validation.run import cache_faults
from engine.feature_cache import key as feature_key
from engine.feature_cache.cache_plan import CachePlan
from engine.feature_cache.computing import _half_precision_weights
from engine.feature_cache.filling import fill_cache
from engine.feature_cache.planning import plan_cache
from engine.processes.signals import InterruptedRunError
from lightning_modules.base import Task
from lightning_modules.callbacks.epoch_seed import EpochSeed
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.networks.heads.classification import (
    BiGRUHead,
    HeadFactory,
    LinearHead,
    MLPHead,
)
from lightning_modules.text_classifier import TextClassifier
from run_folders.run_folder import RunFolder
from tests.conftest import LINEAR_SAMPLE, SAMPLE, Train

BERT = {
    "model_type": "bert", "vocab_size": 128, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 48,
}  # fmt: skip
VIT = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
DEIT = {"architecture": "deit_base_distilled_patch16_224", **VIT}
DENSENET = {"architecture": "densenet121", "growth_rate": 8, "block_config": [1, 1, 1, 1]}
CLEANING = dict.fromkeys(
    ("html", "url", "username", "hashtag", "rep", "punctuation", "demojize"), False
)
METRIC_NAMES = ("loss", "acc", "ece", "f1_macro")


class Recorder(lightning.Callback):
    """Records the batches that were read, and the metrics of each epoch."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.stored: set[bool] = set()
        self.history: list[dict[str, float | None]] = []

    def on_train_batch_start(
        self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(batch["index"].tolist())
        self.stored.add("features" in batch)

    def on_validation_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: int) -> None:
        self.batches.append(batch["index"].tolist())
        self.stored.add("features" in batch)

    on_test_batch_start = on_validation_batch_start

    # Called before the task clears the results of the previous epoch.
    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        for stage, result in pl_module.results.items():
            if stage != "test":
                self.history.append({name: result.metrics[name] for name in METRIC_NAMES})

    on_fit_end = on_train_epoch_start


def texts(**settings: Any) -> SampleTextDataModule:
    defaults: dict[str, Any] = {
        "rows": {"train": 48, "val": 24, "test": 24}, "folder": "", "files": {"train": "a", "val": "b", "test": "c"},
        "classes": ["fake", "real"], "num_classes": 2, "tokenizer": {"vocab_size": 128}, "cleaning": CLEANING, "id_column": "id",
        "max_length": 48, "batch_size": 8, "eval_batch_size": 10,
    }  # fmt: skip
    return SampleTextDataModule(**{**defaults, **settings})


def images(*, flip: bool = False, **settings: Any) -> SampleImagesDataModule:
    augmentation = {
        "crop_padding": 0,
        "flip": flip,
        "rotation": 0.0,
        "rand_augment": None,
        **settings.pop("augmentation", {}),
    }
    defaults: dict[str, Any] = {
        "rows": {"train": 40, "val": 12, "test": 12}, "folder": "", "files": {"train": "a", "val": "b", "test": "c"},
        "classes": list(SAMPLE_CLASSES), "num_classes": 10, "augmentation": augmentation, "batch_size": 8, "eval_batch_size": 9,
    }  # fmt: skip
    return SampleImagesDataModule(**{**defaults, **settings})


def text_task(layer: str | None = None, **settings: Any) -> TextClassifier:
    more = {"pooling": "mean", "lr": 0.02, "freeze_backbone": layer is None, **settings}
    layers = 1 if layer is None else 2
    task = TextClassifier({**BERT, "num_hidden_layers": layers}, 2, **more)
    if layer is not None:
        LayerUnfreezing(layer).set_plan(task)
    return task


def image_task(
    backbone: dict[str, Any] = DEIT, layer: str | None = None, **settings: Any
) -> ImageClassifier:
    more = {"lr": 0.02, "backbone_lr": 0.02, "freeze_backbone": layer is None, **settings}
    task = ImageClassifier(backbone, 10, image_size=32 if backbone is DENSENET else 16, **more)
    if layer is not None:
        LayerUnfreezing(layer).set_plan(task)
    return task


def parts_of(data: Any, task: Task, recorder: Recorder | None = None, **trainer: Any) -> RunObjects:
    data.setup()
    callbacks = [EpochSeed(1), *([] if recorder is None else [recorder])]
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
    }
    settings = {
        "max_epochs": 3,
        "accelerator": "cpu",
        "num_sanity_val_steps": 0,
        **quiet,
        **trainer,
    }
    return RunObjects(
        data, task, lightning.Trainer(callbacks=callbacks, enable_model_summary=False, **settings)
    )


def config(folder: Path, features: object = True, max_gb: float = 1.0, **more: Any) -> DictConfig:
    cache = {"features": features, "dir": str(folder), "max_gb": max_gb}
    return OmegaConf.create({"train": True, "test": True, "cache": cache, **more})


@dataclass
class Trained:
    recorder: Recorder
    task: Task
    plan: CachePlan | None
    test: dict[str, Any] = field(default_factory=dict)


def trained(
    data: Callable[[], Any], task: Callable[[], Task], folder: Path | None, **trainer: Any
) -> Trained:
    """Fit and test, on stored features if a folder is given."""
    torch.manual_seed(3)
    recorder = Recorder()
    parts = parts_of(data(), task(), recorder, **{"max_epochs": 2, **trainer})
    plan = None
    if folder is not None:
        plan = plan_cache(config(folder), parts, None)
        assert fill_cache(plan, parts) is not None
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    parts.trainer.test(parts.task, datamodule=parts.datamodule, verbose=False)
    return Trained(recorder, parts.task, plan, parts.task.results["test"].metrics)


CASES: dict[str, tuple[Callable[[], Any], Callable[[], Task], str]] = {
    "text, linear": (
        texts,
        lambda: text_task(head=partial(LinearHead, dropout=0.3)),
        "the whole backbone",
    ),
    "text, BiGRU": (
        texts,
        lambda: text_task(head=partial(BiGRUHead, hidden=4, dropout=0.3)),
        "the whole backbone",
    ),
    "flip": (lambda: images(flip=True), lambda: image_task(tta_flip=True), "the whole backbone"),
    "prefix, flip": (
        lambda: images(flip=True),
        lambda: image_task(layer="blocks.2", head=partial(MLPHead, hidden=[8], dropout=0.3)),
        "the backbone before blocks.2",
    ),
    "prefix that merges tokens": (
        images,
        lambda: image_task(layer="blocks.2", merge_tokens=1),
        "the backbone before blocks.2",
    ),
    "prefix before learned tokens": (
        images,
        lambda: image_task(learned_tokens={"after": "blocks.0", "number": 2}),
        "the backbone before blocks.token_learner",
    ),
    "prefix of a text encoder": (
        texts,
        lambda: text_task("encoder.layer.1", backbone_lr=0.02),
        "the backbone before encoder.layer.1",
    ),
    "prefix of a convnet": (
        images,
        lambda: image_task(DENSENET, "features.denseblock4"),
        "the backbone before features.denseblock4",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_on_stored_features_equals_training_without(case: str, tmp_path: Path) -> None:
    data, task, cut = CASES[case]
    with_cache, without = trained(data, task, tmp_path), trained(data, task, None)
    assert str(with_cache.plan and with_cache.plan.cut) == cut
    assert (with_cache.recorder.stored, without.recorder.stored) == ({True}, {False})
    assert with_cache.recorder.batches == without.recorder.batches
    for ours, theirs in zip(with_cache.recorder.history, without.recorder.history, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    assert with_cache.test == pytest.approx(without.test, abs=1e-5)
    ours, theirs = with_cache.task.state_dict(), without.task.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, atol=1e-4, rtol=1e-4)
    losses = [row["loss"] for row in without.recorder.history[::2]]
    assert losses[-1] != pytest.approx(losses[0], abs=1e-3)  # training changed the loss
    # evaluate.py does not use the cache, and must reproduce the metrics to the last digit.
    plain = parts_of(data(), with_cache.task)
    plain.trainer.test(plain.task, datamodule=plain.datamodule, verbose=False)
    assert plain.task.results["test"].metrics == with_cache.test


@pytest.mark.parametrize(
    "head", [LinearHead, partial(BiGRUHead, hidden=4)], ids=["linear", "bigru"]
)
def test_half_precision_features_are_stored_in_half_precision(
    head: HeadFactory, tmp_path: Path
) -> None:
    def task() -> TextClassifier:
        return text_task(head=head)

    with_cache, without = (
        trained(texts, task, folder, precision="bf16-mixed", max_epochs=1)
        for folder in (tmp_path, None)
    )
    plain = parts_of(texts(), with_cache.task, precision="bf16-mixed")
    plain.trainer.test(plain.task, datamodule=plain.datamodule, verbose=False)
    assert plain.task.results["test"].metrics == with_cache.test
    for ours, theirs in zip(with_cache.recorder.history, without.recorder.history, strict=True):
        assert ours == pytest.approx(theirs, abs=0.02)
    part = with_cache.task.network.features
    batch = next(iter(parts_of(texts(), with_cache.task).datamodule.val_dataloader()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = part(batch).values
        before = [parameter.data_ptr() for parameter in part.parameters()]
        with _half_precision_weights(part, torch.bfloat16):
            assert part.model.encoder.layer[0].output.dense.weight.dtype == torch.bfloat16
            assert torch.equal(part(batch).values, expected)
    assert [parameter.data_ptr() for parameter in part.parameters()] == before
    assert all(parameter.dtype == torch.float32 for parameter in part.parameters())
    assert {entry.layout.dtype for entry in with_cache.plan.entries.values()} == {expected.dtype}  # type: ignore[union-attr]


def test_a_vision_transformers_features_are_the_same_in_half_precision(tmp_path: Path) -> None:
    with_cache = trained(images, image_task, tmp_path, precision="bf16-mixed", max_epochs=1)
    plain = parts_of(images(), with_cache.task, precision="bf16-mixed")
    plain.trainer.test(plain.task, datamodule=plain.datamodule, verbose=False)
    assert plain.task.results["test"].metrics == with_cache.test
    part = with_cache.task.network.features
    batch = next(iter(parts_of(images(), with_cache.task).datamodule.val_dataloader()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = part(batch).values
        with _half_precision_weights(part, torch.bfloat16):
            assert torch.equal(part(batch).values, expected)


def keys(data: Any, task: Task, folder: Path, **trainer: Any) -> dict[str, str]:
    plan = plan_cache(config(folder), parts_of(data, task, **trainer), None)
    return {split: entry.key for split, entry in plan.entries.items()}


def test_key_covers_all_that_features_depend_on_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seeded(**settings: Any) -> TextClassifier:
        torch.manual_seed(0)
        return text_task(**settings)

    def other_weight() -> TextClassifier:
        task = seeded()
        task.network.features.model.encoder.layer[0].output.LayerNorm.bias.data[3] += 1e-6
        return task

    base = keys(texts(), seeded(), tmp_path)
    assert len(set(base.values())) == 3
    assert (
        keys(
            texts(batch_size=4, seed=9),
            seeded(lr=1.0, head=partial(LinearHead, dropout=0.5)),
            tmp_path,
        )
        == base
    )
    others = {
        "weights": keys(texts(), other_weight(), tmp_path),
        "pooling": keys(texts(), seeded(pooling="cls"), tmp_path),
        "tokens": keys(texts(), seeded(head=BiGRUHead), tmp_path),
        "max_length": keys(texts(max_length=8), seeded(), tmp_path),
        "tokenizer": keys(texts(tokenizer={"vocab_size": 100}), seeded(), tmp_path),
        "cleaning": keys(texts(cleaning={**CLEANING, "punctuation": True}), seeded(), tmp_path),
        "precision": keys(texts(), seeded(), tmp_path, precision="bf16-mixed"),
        "batches of an evaluation": keys(texts(eval_batch_size=7), seeded(), tmp_path),
    }
    monkeypatch.setattr(feature_key, "version", lambda name: f"0 of {name}")
    others["versions"] = keys(texts(), seeded(), tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(feature_key, "code_digest", lambda: "of other code")
    others["code"] = keys(texts(), seeded(), tmp_path)
    monkeypatch.undo()
    for name, found in others.items():
        assert not set(found.values()) & set(base.values()), name
    shorter = keys(texts(rows={"train": 48, "val": 24, "test": 20}), seeded(), tmp_path)
    assert {split for split in base if shorter[split] == base[split]} == {"train", "val"}


def test_key_of_images(tmp_path: Path) -> None:
    def seeded(layer: str | None = None, **settings: Any) -> ImageClassifier:
        torch.manual_seed(0)
        return image_task(layer=layer, **settings)

    base, flipped = keys(images(), seeded(), tmp_path), keys(images(flip=True), seeded(), tmp_path)
    assert {split for split in base if flipped[split] == base[split]} == {"val", "test"}
    with_tta_flip = keys(images(), seeded(tta_flip=True), tmp_path)
    assert {split for split in base if with_tta_flip[split] == base[split]} == {"train"}
    assert not set(keys(images(), seeded("blocks.2"), tmp_path).values()) & set(base.values())
    merged = [keys(images(), seeded(merge_tokens=r), tmp_path)["val"] for r in (0, 1, 2)]
    merged.append(
        keys(images(), seeded(merge_tokens={"merged": 1, "proportional": False}), tmp_path)["val"]
    )
    assert merged[0] == base["val"]
    assert len(set(merged)) == 4
    assert keys(images(), seeded("blocks.1"), tmp_path) != keys(
        images(), seeded("blocks.2"), tmp_path
    )

    def suffix_changed() -> ImageClassifier:
        task = seeded("blocks.2")
        task.network.features.model.blocks[2].norm1.bias.data += 1
        task.network.features.model.norm.bias.data += 1
        return task

    assert keys(images(), suffix_changed(), tmp_path) == keys(
        images(), seeded("blocks.2"), tmp_path
    )


class Counted(nn.Module):
    """Counts how often a network runs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, **inputs: Any) -> Any:
        self.calls += 1
        return self.inner(**inputs)


def test_a_run_records_its_features_and_a_resumed_run_reuses_them(
    train: Train, tmp_path: Path
) -> None:
    overrides = [
        *SAMPLE,
        "model.freeze_backbone=true",
        "schedule=constant",
        f"cache.dir={tmp_path / 'c'}",
    ]
    ended = train(*overrides, "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    entries = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("*/values.bin")}
    plan = folder.read_json("plan.json")["features"]
    assert plan["stored"] == "the whole backbone"
    assert plan["bytes"] == sum(path.stat().st_size for path in entries)
    assert [split["found"] for split in plan["splits"].values()] == [False] * 3
    assert folder.read_json("metrics.json")["seconds"]["features"] > 0
    text = (folder.path / "train.log").read_text()
    assert f"features of the whole backbone are cached in {tmp_path / 'c'}: " in text
    assert "; to be computed: train, val, test" in text
    resumed = train(*overrides, "trainer.max_epochs=3", "ckpt_path=last")
    assert resumed.code == 0, resumed.err
    assert [
        split["found"] for split in folder.read_json("plan.json")["features"]["splits"].values()
    ] == [True] * 3
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "c").glob("*/values.bin")
    } == entries
    whole = train(*overrides, "trainer.max_epochs=3", folder=tmp_path / "whole")
    assert whole.code == 0, whole.err
    assert history_without_times(folder) == history_without_times(RunFolder(whole.folder))
    assert len(history_without_times(folder)) == 3


def test_the_history_equals_that_of_a_run_without_stored_features(
    train: Train, tmp_path: Path
) -> None:
    overrides = [
        *LINEAR_SAMPLE,
        "model.pooling=mean",
        "model.freeze_backbone=true",
        f"cache.dir={tmp_path / 'c'}",
        "trainer.max_epochs=3",
        "test=false",
    ]
    histories = []
    for stored in ("true", "false"):
        ended = train(*overrides, f"cache.features={stored}", folder=tmp_path / stored)
        assert ended.code == 0, ended.err
        histories.append(history_without_times(RunFolder(ended.folder)))
    for ours, theirs in zip(*histories, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            expected = (
                value
                if name.startswith("lr/") or not value
                else pytest.approx(float(value), abs=1e-4)
            )
            assert (ours[name] if isinstance(expected, str) else float(ours[name])) == expected, (
                name
            )
    rates = [row["lr/head"] for row in histories[0]]
    assert rates == sorted(rates, key=float, reverse=True)
    assert len(set(rates)) == 3
    # Each run can be resumed with the cache setting of the other.
    for stored, other in (("true", "false"), ("false", "true")):
        ended = train(
            *overrides,
            f"cache.features={other}",
            "trainer.max_epochs=4",
            "ckpt_path=last",
            folder=tmp_path / stored,
        )
        assert ended.code == 0, ended.err
    last = [
        float(history_without_times(RunFolder(tmp_path / stored))[-1]["val/loss"])
        for stored in ("true", "false")
    ]
    assert last[0] == pytest.approx(last[1], abs=1e-4)


def test_an_unusable_cache_folder_is_recorded(train: Train, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    overrides = [
        *SAMPLE,
        "model.freeze_backbone=true",
        "trainer.max_epochs=2",
        f"cache.dir={tmp_path / 'a_file'}",
    ]
    ended = train(*overrides)
    assert ended.code == 0, ended.err
    plan = RunFolder(ended.folder).read_json("plan.json")
    assert plan["features"]["stored"] is None
    assert f"{tmp_path / 'a_file'} cannot be used" in plan["features"]["reason"]
    assert plan["rows"]
    assert RunFolder(ended.folder).read_json("metrics.json")["seconds"]["features"] is None
    ended = train(*overrides, "cache.features=true", folder=tmp_path / "required")
    assert ended.code == 1
    assert "cannot be used" in ended.err


def test_feature_input_is_not_split_between_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_order, "process_rank", lambda: (1, 2))
    for data in (texts(), images()):
        data.setup()
        source = data.feature_input("val")
        assert [len(batch["labels"]) for batch in source.loader()] == [
            len(batch) for batch in source.positions
        ]


def history_without_times(folder: RunFolder) -> list[dict[str, str]]:
    """Return the history without times."""
    timed = ("seconds", "per_second")
    return [
        {key: value for key, value in row.items() if not key.endswith(timed)}
        for row in folder.read_history()
    ]


def test_key_covers_the_weights_of_the_checkpoint_that_training_starts_from(tmp_path: Path) -> None:
    task = text_task()
    other = text_task()
    path = tmp_path / "other.ckpt"
    torch.save({"state_dict": other.state_dict(), "thaw": {"format": 1}, "epoch": 0}, path)
    parts = parts_of(texts(), task)
    plan = plan_cache(config(tmp_path / "c"), parts, path)
    assert {split: entry.key for split, entry in plan.entries.items()} == keys(
        texts(), other, tmp_path / "c"
    )


def test_damaged_features_are_computed_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = parts_of(texts(), text_task())
    plan = plan_cache(config(tmp_path), parts, None)
    fill_cache(plan, parts)
    right = {split: stored.values.clone() for split, stored in parts.datamodule.stored.items()}
    values, entry, cut = (tmp_path / plan.entries[split].key for split in ("train", "val", "test"))
    content = bytearray((values / "values.bin").read_bytes())
    content[100] ^= 1
    (values / "values.bin").write_bytes(content)
    (entry / "entry.json").write_text("{}")
    (cut / "values.bin").write_bytes((cut / "values.bin").read_bytes()[:-4])
    fill_cache(plan, parts)
    messages = [record.message for record in caplog.records if "damaged" in record.message]
    assert len(messages) == 3
    assert str(values) in messages[0]
    assert "computed again" in messages[0]
    for split, expected in right.items():
        assert torch.equal(parts.datamodule.stored[split].values, expected)
    caplog.clear()
    fill_cache(plan, parts)
    assert not [record for record in caplog.records if "damaged" in record.message]


def reason_not_to_cache(parts: RunObjects, folder: Path, **settings: Any) -> str:
    """Return the reason not to cache with cache.features=auto."""
    plan = plan_cache(config(folder, "auto", **settings), parts, None)
    assert plan.cut is None
    assert plan.facts() == {"stored": None, "reason": plan.reason}
    assert plan.line() == (f"features are not cached: {plan.reason}" if plan.reason else "")
    return plan.reason


def test_reasons_not_to_cache_are_reported(tmp_path: Path) -> None:
    def unfrozen() -> TextClassifier:
        return TextClassifier(BERT, 2, pooling="mean")

    impossible: dict[str, RunObjects] = {
        "": parts_of(texts(), unfrozen()),
        "data.augmentation (rotation=15.0) changes the images": parts_of(
            images(flip=True, augmentation={"rotation": 15.0}), image_task()
        ),
        "trains from its first layer, patch_embed.proj": parts_of(images(), image_task(layer="patch_embed")),
        "pos_embed trains, and it comes before": parts_of(images(), image_task(layer="pos_embed")),
    }  # fmt: skip
    for reason, parts in impossible.items():
        assert reason in reason_not_to_cache(parts, tmp_path)
        with pytest.raises(ConfigError, match="received true, but features cannot be cached"):
            plan_cache(config(tmp_path), parts, None)
    not_worthwhile = {
        "training has only 1 epoch, and computing the features takes 1 pass": parts_of(
            texts(), text_task(), max_epochs=1
        ),
        "training has only 2 epochs, and computing the features takes 2 passes": parts_of(
            images(flip=True), image_task(), max_epochs=2
        ),
        "the layers before encoder compute only 0.0% of the network": parts_of(
            texts(), text_task("encoder.layer.0")
        ),
        "the input of blocks is large: computing it takes only 32 multiplications for each byte": parts_of(
            images(), image_task(layer="blocks.0")
        ),
        "trainer.limit_train_batches=1 uses only part": parts_of(
            texts(), text_task(), limit_train_batches=1
        ),
    }
    for reason, parts in not_worthwhile.items():
        assert reason in reason_not_to_cache(parts, tmp_path)
        assert plan_cache(config(tmp_path), parts, None).cut is not None
    small = parts_of(texts(), text_task())
    full = f"the features take 0.01 MB, and {tmp_path} holds 0.00 MB of the 0.00 MB that cache.max_gb allows"
    assert full in reason_not_to_cache(small, tmp_path, max_gb=1e-6)
    with pytest.raises(
        ConfigError,
        match=r"received true, but features cannot be cached: the features take .*scripts/cache\.py list\|clear",
    ):
        plan_cache(config(tmp_path, max_gb=1e-6), small, None)
    assert plan_cache(config(tmp_path, features=False), small, None) == CachePlan()
    assert not list(tmp_path.iterdir())


def test_cut_precedes_every_layer_that_the_schedule_unfreezes(tmp_path: Path) -> None:
    task = image_task(freeze_backbone=False)
    LayerUnfreezing(schedule={0: None, 1: "blocks.2", 2: "blocks.1"}).set_plan(task)
    assert (
        str(plan_cache(config(tmp_path), parts_of(images(), task), None).cut)
        == "the backbone before blocks.1"
    )


def test_an_interrupted_computation_leaves_no_partial_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_of(texts(), text_task())
    plan = plan_cache(config(tmp_path), parts, None)
    run, calls = parts.task.network.features.forward, []

    def stop(batch: Any) -> Any:
        calls.append(batch)
        if len(calls) == 2:
            raise InterruptedRunError(signal.SIGTERM)
        return run(batch)

    monkeypatch.setattr(parts.task.network.features, "forward", stop)
    with pytest.raises(InterruptedRunError):
        fill_cache(plan, parts)
    assert not list(tmp_path.iterdir())
    assert not parts.datamodule.stored
    assert parts.task.training


def compute_once(folder: str, calls: Any) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    parts = parts_of(texts(), text_task())
    counted = Counted(parts.task.network.features.model)
    plan = plan_cache(config(Path(folder)), parts, None)
    parts.task.network.features.model = counted
    fill_cache(plan, parts)
    calls.put(
        (
            counted.calls,
            {
                split: stored.values.sum().item()
                for split, stored in parts.datamodule.stored.items()
            },
        )
    )


def test_processes_with_the_same_key_compute_features_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    calls = context.Queue()
    processes = [
        context.Process(target=compute_once, args=(str(tmp_path), calls)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    found = [calls.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    batches = 5 + 3 + 3
    assert sum(count for count, _ in found) == batches
    assert found[0][1] == found[1][1] == found[2][1]


def test_faults_of_the_cache_block_are_reported() -> None:
    assert not list(cache_faults({"cache": {"features": "auto", "dir": None, "max_gb": 20}}))
    assert dict(cache_faults({"cache": {"features": "maybe", "dir": 3, "max_gb": 0}})) == {
        "cache.features": "received 'maybe'; choose auto, true or false",
        "cache.dir": "received 3; a folder is needed, or null for the user's cache folder",
        "cache.max_gb": "received 0; a number of gigabytes above 0, up to 1e+09, is needed",
    }
    assert [fault for fault, _ in cache_faults({"cache": {"features": None, "dir": "", "max_gb": "much"}})] == [
        "cache.features", "cache.dir", "cache.max_gb",
    ]  # fmt: skip
    assert [fault for fault, _ in cache_faults({})] == ["cache"]


def test_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("~/x") == Path.home() / "x"
    assert cache_folder(None) == Path(os.environ["THAW_CACHE"])
    monkeypatch.delenv("THAW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "thaw" / "features"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder(None) == Path.home() / ".cache" / "thaw" / "features"
