"""Each argument of Lightning's Trainer is honoured, or refused with the name of what to use."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from datamodules.batching.order import ShuffledBatches
from engine.config.composing.composition import compose_config
from engine.config.objects import protocol_faults
from engine.config.places import PLACES
from engine.sweeps.names import register_resolvers
from engine.trainer import build_trainer
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train

Check = Callable[[Any], bool]
# Argument -> a value that is not the default, and how the built trainer shows it.
HONOURED: dict[str, tuple[Any, Check]] = {
    "accelerator": ("cpu", lambda t: t.strategy.root_device.type == "cpu"),
    "strategy": ("ddp", lambda t: type(t.strategy).__name__ == "DDPStrategy"),
    "devices": (1, lambda t: t.num_devices == 1),
    "num_nodes": (1, lambda t: t.num_nodes == 1),
    "precision": ("64-true", lambda t: t.precision == "64-true"),
    "max_epochs": (7, lambda t: t.max_epochs == 7),
    "min_epochs": (3, lambda t: t.min_epochs == 3),
    "max_steps": (11, lambda t: t.max_steps == 11),
    "min_steps": (4, lambda t: t.min_steps == 4),
    "max_time": (
        "00:00:01:00",
        lambda t: any(getattr(c, "_duration", 0) == 60 for c in t.callbacks),
    ),
    "limit_train_batches": (2, lambda t: t.limit_train_batches == 2),
    "limit_val_batches": (2, lambda t: t.limit_val_batches == 2),
    "limit_test_batches": (2, lambda t: t.limit_test_batches == 2),
    "overfit_batches": (2, lambda t: t.limit_train_batches == t.limit_val_batches == 2),
    "val_check_interval": (0.5, lambda t: t.val_check_interval == 0.5),
    "check_val_every_n_epoch": (2, lambda t: t.check_val_every_n_epoch == 2),
    "num_sanity_val_steps": (2, lambda t: t.num_sanity_val_steps == 2),
    "log_every_n_steps": (3, lambda t: t.log_every_n_steps == 3),
    "accumulate_grad_batches": (2, lambda t: t.accumulate_grad_batches == 2),
    "gradient_clip_val": (0.3, lambda t: t.gradient_clip_val == 0.3),
    "gradient_clip_algorithm": ("value", lambda t: t.gradient_clip_algorithm == "value"),
    "deterministic": ("warn", lambda _: torch.is_deterministic_algorithms_warn_only_enabled()),
    "benchmark": (True, lambda _: torch.backends.cudnn.benchmark),
    "inference_mode": (False, lambda t: not t.test_loop.inference_mode),
    "profiler": ("simple", lambda t: t.profiler.filename == "profile"),
    "detect_anomaly": (True, lambda t: t._detect_anomaly),
    "sync_batchnorm": (True, lambda t: t._accelerator_connector._layer_sync),
    "use_distributed_sampler": (
        False,
        lambda t: not t._accelerator_connector.use_distributed_sampler,
    ),
}
REFUSED = PLACES["trainer"].refused


def test_every_argument_is_either_honoured_or_refused() -> None:
    parameters = set(inspect.signature(lightning.Trainer).parameters)
    assert HONOURED.keys() | REFUSED.keys() == parameters
    assert not HONOURED.keys() & REFUSED.keys()


@pytest.fixture
def _torch_settings() -> Any:
    before = torch.backends.cudnn.benchmark
    yield
    torch.backends.cudnn.benchmark = before
    torch.use_deterministic_algorithms(True)


@pytest.mark.usefixtures("_torch_settings")
@pytest.mark.parametrize("key", HONOURED)
def test_the_trainer_gets_the_value(key: str, tmp_path: Path) -> None:
    register_resolvers()
    value, shows = HONOURED[key]
    text = str(value).lower() if isinstance(value, bool) else value
    cfg = compose_config(["name=x", "trainer=cpu", f"++trainer.{key}='{text}'"])
    cfg.trainer[key] = value
    assert shows(build_trainer(cfg, RunFolder(tmp_path), [], []))


def test_refused_arguments_are_named_with_what_to_use(train: Train) -> None:
    assert all(
        list(protocol_faults(lightning.Trainer, {key: value}, "trainer"))
        == [(f"trainer.{key}", f"cannot be set here: {advice}")]
        for key, advice in REFUSED.items()
        for value in (None, False, 1)
    )
    ended = train(*SAMPLE, *(f"+trainer.{key}=1" for key in REFUSED))
    assert ended.code == 1
    assert f"{len(REFUSED)} faults in the config; nothing was run" in ended.error
    for key, advice in REFUSED.items():
        assert f"trainer.{key} (the command line): cannot be set here: {advice}" in ended.error


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.use_distributed_sampler=true"], "Thaw's own samplers divide each batch"),
        (["+trainer.val_check_interval='00:00:01:00'"], "a time is not reproducible"),
        (["+trainer.val_check_interval={minutes: 1}"], "a time is not reproducible"),
        (["trainer.max_steps=0"], "trainer.max_steps (the command line): received 0"),
        (
            ["trainer.overfit_batches=1", "trainer.limit_val_batches=1"],
            "received 1, and trainer.overfit_batches sets it too",
        ),
        (
            ["trainer.overfit_batches=1", "trainer.limit_train_batches=0.5"],
            "received 0.5, and trainer.overfit_batches sets it too",
        ),
        (
            ["trainer.limit_test_batches=0.5"],
            "trainer.limit_test_batches: received 0.5, and the test split has 1 batches",
        ),
        (
            ["trainer.limit_val_batches=0.5"],
            "trainer.limit_val_batches: received 0.5, and the val split has 1 batches",
        ),
    ],
)
def test_values_that_cannot_be_honoured_are_refused_before_training(
    overrides: list[str], message: str, train: Train
) -> None:
    ended = train(*SAMPLE, *overrides)
    assert ended.code == 1
    assert message in ended.error
    assert "Traceback" not in ended.err
    assert "epoch 0" not in ended.err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["+callbacks.rates._target_=lightning.pytorch.callbacks.LearningRateMonitor"],
            "trainer: Cannot use `LearningRateMonitor` callback",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/nothing"],
            "trainer: Early stopping conditioned on metric `val/nothing`",
        ),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.mode=min"],
            "callbacks.early_stopping.mode (the command line): received 'min'; higher values of",
        ),
    ],
)
def test_what_lightning_refuses_is_one_line(
    overrides: list[str], message: str, train: Train
) -> None:
    ended = train(*SAMPLE, *overrides)
    assert ended.code == 1
    assert message in ended.error
    assert "Traceback" not in ended.err


def test_a_bug_keeps_its_traceback(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what Lightning itself raises is taken for a refusal."""
    from lightning_modules.text_classifier import TextClassifier

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(TextClassifier, "on_train_epoch_start", fail)
    ended = train(*SAMPLE)
    assert ended.code == 1
    assert "Traceback" in ended.err


def test_early_stopping_has_the_direction_of_its_own_metric() -> None:
    register_resolvers()
    own = "callbacks.early_stopping.monitor=val/loss"
    cfg = compose_config(["name=x", "callbacks=early_stopping", own])
    assert (cfg.mode, cfg.callbacks.early_stopping.mode) == ("max", "min")
    cfg = compose_config(["name=x", "schedule=plateau", "model.schedule.monitor=val/loss"])
    assert (cfg.mode, cfg.model.schedule.mode) == ("max", "min")


def test_overfitting_repeats_the_batches_of_the_first_epoch(train: Train) -> None:
    from lightning_modules.text_classifier import TextClassifier

    seen: list[list[int]] = []
    training_step = TextClassifier.training_step

    def step(self: TextClassifier, batch: Any, *more: Any) -> Any:
        seen.append(batch["index"].tolist())
        return training_step(self, batch, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextClassifier, "training_step", step)
        ended = train(*SAMPLE, "trainer.overfit_batches=2", "trainer.max_epochs=3")
    assert ended.code == 0, ended.err
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]
    assert seen[0] != seen[1]
    assert "every epoch trains on the same batches, the first ones" in ended.out
    assert all(row["train/n"] == "64" for row in RunFolder(ended.folder).read_history())


def test_a_resumed_epoch_repeats_them_too() -> None:
    for repeats in (True, False):
        first, resumed = (ShuffledBatches(20, 4, seed=1) for _ in range(2))
        first.start(0, repeats=repeats)
        resumed.start(3, repeats=repeats)
        assert (list(first) == list(resumed)) is repeats


def test_the_profilers_reports_are_in_the_run_folder(train: Train) -> None:
    ended = train(*SAMPLE, "trainer.max_epochs=1", "+trainer.profiler=simple")
    assert ended.code == 0, ended.err
    folder = ended.folder / "profile"
    assert f"the profiler's reports are written to {folder}" in ended.err
    reports = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(reports) == {"fit-profile.txt", "validate-profile.txt", "test-profile.txt"}
    assert "run_training_epoch" in reports["fit-profile.txt"]


def test_early_stopping_says_that_it_ended_the_run(train: Train) -> None:
    overrides = ("callbacks=early_stopping", "callbacks.early_stopping.patience=0")
    ended = train(*SAMPLE, *overrides, "trainer.max_epochs=9", "model.lr=0", "model.backbone_lr=0")
    assert ended.code == 0, ended.err
    line = "early stopping ended training after 2 epochs of 9: val/acc did not improve on "
    assert line in ended.err
    assert "(patience=0)" in ended.err
    assert RunFolder(ended.folder).read_json("plan.json")["ended"].startswith(line)
    assert line in (ended.folder / "report.html").read_text()
    assert "early stopping" not in train(*SAMPLE, folder=ended.folder.with_name("all")).err


def test_the_plan_of_unlimited_epochs_names_what_ends_them(train: Train) -> None:
    ended = train(*SAMPLE, "trainer.max_epochs=-1", "trainer.max_steps=6")
    assert ended.code == 0, ended.err
    assert "epochs: unlimited (ends by trainer.max_steps=6)" in ended.out
    assert "epoch 1: train/acc" in ended.err
    ended = train(*SAMPLE, "trainer.max_steps=5", "plan=true", folder=ended.folder.with_name("b"))
    assert "epochs: 2, or 5 steps" in ended.out


def test_a_duration_is_a_time_of_lightning() -> None:
    """The check above reads the seconds of its timer."""
    timer = lightning.pytorch.callbacks.Timer(timedelta(minutes=1))
    assert timer._duration == 60
