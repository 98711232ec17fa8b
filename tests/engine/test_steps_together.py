"""Several steps in one of Lightning's are those steps: to the bit, with schedule, clipping, flips and the count of steps."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    GradientAccumulationScheduler,
    LearningRateMonitor,
    ModelCheckpoint,
)

from engine import steps_together
from engine.build import Parts
from engine.feature_cache import give_features, plan_features
from engine.steps_together import steps_at_once
from lightning_modules.base import Task
from lightning_modules.losses import NonFiniteLossError
from lightning_modules.steps import planned_steps
from lightning_modules.text_classifier import TextClassifier
from tests.engine.test_feature_cache import config, image_task, images, parts_of, text_task, texts

CASES: dict[str, tuple[Callable[[], Any], Callable[[], Task], dict[str, Any]]] = {
    "dropout and clipping": (texts, lambda: text_task(dropout=0.3), {"gradient_clip_val": 0.05}),
    "plateau": (texts, lambda: text_task(schedule="plateau", monitor="val/loss", mode="min", patience=0, lr=0.5), {}),
    "bfloat16": (texts, lambda: text_task(dropout=0.3), {"precision": "bf16-mixed"}),
    "token states": (texts, lambda: text_task(head="bigru", hidden=4, dropout=0.3), {"gradient_clip_val": 0.05}),
    "flip": (lambda: images(flip=True), lambda: image_task(schedule="onecycle", mirror_test=True), {}),
}


class Watcher(lightning.Callback):
    """Content with the last step of several, as the engine is told below."""

    def __init__(self) -> None:
        self.calls, self.seen, self.lrs = 0, 0, [0.0]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.calls += 1
        self.seen += len(batch["index"])
        self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps_together, "_CONTENT", (*steps_together._CONTENT, Watcher))


def fitted(case: str, folder: Path, *, together: bool) -> tuple[Parts, Watcher]:
    data, task, more = CASES[case]
    torch.manual_seed(3)
    parts, watcher = parts_of(data(), task(), log_every_n_steps=4, **more), Watcher()
    parts.trainer.callbacks.append(watcher)  # type: ignore[attr-defined]
    assert give_features(plan_features(config(folder), parts, None), parts) is not None
    assert parts.datamodule.steps_at_once == 4
    if not together:
        parts.datamodule.steps_at_once = 1
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    history = dict(parts.task.results)
    parts.trainer.test(parts.task, datamodule=parts.datamodule, verbose=False)
    parts.task.results.update(history)
    return parts, watcher


@pytest.mark.parametrize("case", CASES)
def test_they_are_the_same_steps(case: str, tmp_path: Path) -> None:
    (ours, watched), (plain, watched_plain) = (fitted(case, tmp_path, together=together) for together in (True, False))
    batches = watched_plain.calls
    assert watched.calls < batches
    assert watched.seen == watched_plain.seen
    assert watched.lrs[-1] == watched_plain.lrs[-1]
    assert ours.trainer.global_step == plain.trainer.global_step == batches
    state = plain.task.state_dict()
    for name, value in ours.task.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert ours.trainer.num_val_batches == [1]
    for stage in ("train", "val", "test"):
        assert ours.task.results[stage].figures == plain.task.results[stage].figures
        assert ours.task.results[stage].count == plain.task.results[stage].count


@pytest.mark.parametrize(("algorithm", "expected"), [("norm", 0.02), (None, 0.02), ("value", 1e-4)])
def test_a_step_is_as_long_as_clipping_lets_it_be(algorithm: str | None, expected: float) -> None:
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0, "lr": 1.0}
    clipped = {"gradient_clip_val": expected, "gradient_clip_algorithm": algorithm}
    parts = parts_of(texts(rows={"train": 16, "val": 8, "test": 8}, batch_size=16), text_task(**plain), max_epochs=1, **clipped)
    before = torch.cat([p.detach().clone().flatten() for p in parts.task.network.head.parameters()])
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    assert parts.trainer.global_step == 1
    moved = torch.cat([p.detach().flatten() for p in parts.task.network.head.parameters()]) - before
    length = moved.abs().max() if algorithm == "value" else moved.norm()
    assert float(length) == pytest.approx(expected, rel=1e-3)


def test_a_step_without_clipping_is_not_divided_by_what_the_one_before_was() -> None:
    class Stops(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.gradient_clip_val = None

    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "warmup": 0.0, "lr": 1.0}
    parts = parts_of(texts(rows={"train": 16, "val": 8, "test": 8}), text_task(**plain), max_epochs=1, gradient_clip_val=1e-3)
    parts.trainer.callbacks.append(Stops())  # type: ignore[attr-defined]
    parts.trainer.fit(parts.task, datamodule=parts.datamodule)
    assert parts.trainer.global_step == 2
    assert parts.trainer.optimizers[0].grad_scale is None  # type: ignore[attr-defined]


def test_the_schedule_counts_steps(tmp_path: Path) -> None:
    parts, _ = fitted("flip", tmp_path, together=True)
    assert planned_steps(parts.trainer) == (15, 5)
    assert parts.trainer.num_training_batches == 2


def test_a_loss_that_is_no_number_names_its_batch(tmp_path: Path) -> None:
    parts = parts_of(texts(), text_task(lr=float("nan")), log_every_n_steps=6)
    give_features(plan_features(config(tmp_path), parts, None), parts)
    parts.datamodule.steps_at_once = 6
    with pytest.raises(NonFiniteLossError, match=r"the training loss is nan in epoch 0, batch 1 \(index \d"):
        parts.trainer.fit(parts.task, datamodule=parts.datamodule)


class OfTheUsers(lightning.Callback):
    """Whatever it does."""


@pytest.mark.parametrize(
    ("task", "trainer"),
    [
        (lambda: image_task(layer="blocks.2"), {}),
        (text_task, {"accumulate_grad_batches": 2}),
        (text_task, {"max_steps": 3}),
        (text_task, {"limit_train_batches": 1}),
        (text_task, {"limit_val_batches": 1}),
        (text_task, {"limit_test_batches": 0.5}),
        (text_task, {"val_check_interval": 2}),
    ],
)
def test_one_at_a_time_where_something_counts_steps(task: Callable[[], Task], trainer: dict[str, Any], tmp_path: Path) -> None:
    built = task()
    data = texts() if isinstance(built, TextClassifier) else images()
    parts = parts_of(data, built, **trainer)
    assert give_features(plan_features(config(tmp_path), parts, None), parts) is not None
    assert parts.datamodule.steps_at_once == 1


def test_no_more_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = parts_of(texts(), text_task(head="bigru", hidden=4))
    give_features(plan_features(config(tmp_path), parts, None), parts)
    lengths = [features.lengths for features in parts.datamodule.stored.values()]
    longest = max(int(each.max()) for each in lengths if each is not None)
    batch = 10 * longest * 16 * 4  # bytes: ten texts of an evaluation, 16 channels
    for room, steps in ((3 * batch, 3), (batch - 1, 1), (1000 * batch, 50)):
        monkeypatch.setattr(steps_together, "_BYTES", room)
        assert steps_at_once(parts) == steps


@pytest.mark.parametrize(
    "callback",
    [
        OfTheUsers(),
        GradientAccumulationScheduler({1: 2}),
        EMAWeightAveraging(),
        ModelCheckpoint(every_n_train_steps=20),
        LearningRateMonitor(),
    ],
    ids=lambda callback: type(callback).__name__,
)
def test_one_at_a_time_under_a_callback_that_acts_between_them(callback: lightning.Callback, tmp_path: Path) -> None:
    parts = parts_of(texts(), text_task())
    give_features(plan_features(config(tmp_path), parts, None), parts)
    assert steps_at_once(parts) == 50
    parts.trainer.callbacks.append(callback)  # type: ignore[attr-defined]
    assert steps_at_once(parts) == 1
