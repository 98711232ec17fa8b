"""Own packages: the example is installed and used; what is not installed is named."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor, nn

from engine.config.composing.paths import own_config_folders
from engine.config.errors import ConfigError
from engine.evaluation import evaluate
from engine.feature_cache.key import plain_attributes
from lightning_modules.image_classifier import ImageClassifier
from lightning_modules.text_classifier import TextClassifier
from run_folders.own_packages import VARIABLE, OwnPackageError, own_packages
from run_folders.run_folder import RunFolder
from tests.conftest import ROOT, SAMPLE, Train

EXAMPLE = ROOT / "docs" / "examples" / "thaw_birds"
NOTES = {
    "heron": ["grey and tall by the water", "stands still in the reeds", "long legs, a slow bird"],
    "robin": ["small and red", "sings on the fence", "a red breast in the garden"],
}
SMALL = ("trainer.accelerator=cpu", "data.batch_size=8", "model.backbone.num_hidden_layers=1")
# Train one epoch, resume for a second one, evaluate, predict.
PROGRAM = """
import sys
import train
from scripts import evaluate, predict

def call(main, *arguments):
    sys.argv[1:] = arguments
    code = main()
    if code:
        raise SystemExit(f"{main.__module__} {arguments} exited with {code}")

data, small = sys.argv[1], sys.argv[2:]
run = ["experiment=birds", f"paths.data_dir={data}", "hydra.run.dir=run", *small]
call(train.main, *run, "schedule=constant", "trainer.max_epochs=1")
call(train.main, *run, "schedule=constant", "trainer.max_epochs=2", "ckpt_path=last")
call(evaluate.main, "run")
call(predict.main, "run", "new.csv", "-o", "out.csv")
"""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder of text files, as `NotesDataModule` reads them."""
    for split, count in {"train": 12, "val": 6, "test": 6}.items():
        for name, texts in NOTES.items():
            folder = tmp_path / "data" / "notes" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                (folder / f"{i}.txt").write_text(f"{texts[i % 3]}, {split} note {i}")
    return tmp_path / "data"


def environment_with(package: Path, target: Path) -> Path:
    """Create an environment that has this one's packages and the package; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", str(target)], check=True)
    python = target / "bin" / "python"
    purelib = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    # The environment of the tests may be one itself, so its packages are no system packages.
    (Path(purelib) / "tests.pth").write_text(
        f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    )
    source = target / "source"
    shutil.copytree(package, source)  # setuptools writes into the source folder
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*install, "--disable-pip-version-check", str(source)], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return python


def test_the_example_is_installed_trained_resumed_evaluated_and_predicted_with(
    notes: Path, tmp_path: Path
) -> None:
    python = environment_with(EXAMPLE, tmp_path / "venv")
    (tmp_path / "new.csv").write_text("text\na red bird on the fence\n")
    done = subprocess.run(
        [python, "-c", PROGRAM, str(notes), *SMALL], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "mean gradient norm" in done.stderr
    assert "all metrics equal metrics.json" in done.stdout
    folder = RunFolder(tmp_path / "run")
    assert [row["epoch"] for row in folder.read_history()] == ["0", "1"]
    assert "thaw_birds.losses.FocalLoss" in folder.config.read_text()
    assert pd.read_csv(tmp_path / "out.csv")["prediction"].isin(NOTES).all()
    with pytest.raises(ConfigError, match="if you trust the package thaw_birds, install it"):
        evaluate(folder.path, None)


def test_the_environment_names_a_package(
    notes: Path, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = train("loss=focal")
    assert "loss=focal: configs/loss/ has no 'focal'" in ended.error
    monkeypatch.syspath_prepend(str(EXAMPLE))
    monkeypatch.setenv(VARIABLE, "thaw_birds")
    ended = train(
        "experiment=birds",
        f"paths.data_dir={notes}",
        "trainer.max_epochs=1",
        "loss.gamma=1",
        *SMALL,
    )
    assert "unknown key 'loss.gamma'" in ended.error
    ended = train(
        "experiment=birds", f"paths.data_dir={notes}", "trainer.max_epochs=1",
        "model.loss.gamma=1", *SMALL,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    checkpoint = torch.load(
        RunFolder(ended.folder).best_checkpoint, weights_only=True
    )  # two logits for two classes, because the loss does not declare one
    assert checkpoint["state_dict"]["network.head.output.weight"].shape[0] == 2
    metrics = RunFolder(ended.folder).read_json("metrics.json")
    assert metrics["loss"] == "thaw_birds.losses.FocalLoss"
    ended = train("head=two_layer", "+model.head.droput=0.2", folder=tmp_path / "typo")
    assert "unknown key of TwoLayerHead; did you mean dropout?" in ended.error


def test_a_package_that_is_missing_is_named(
    train: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "no_such_package")
    assert own_packages()[-1] == "no_such_package"
    with pytest.raises(OwnPackageError, match="no_such_package cannot be found; install it"):
        own_config_folders()
    ended = train()
    assert ended.code == 1
    assert "the own package no_such_package cannot be found" in ended.error
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    import train as entry

    assert entry.main() == 1
    assert "no_such_package" in capsys.readouterr().err


def test_a_config_in_the_working_directory_is_an_option(train: Train, tmp_path: Path) -> None:
    file = tmp_path / "configs" / "schedule" / "short.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package model.schedule\n_target_: lightning_modules.optim.schedules.linear\nwarmup: 3\n"
    )
    ended = train("schedule=short")
    assert "model.schedule.warmup (configs/schedule/short.yaml): received 3" in ended.error


class Stripes(nn.Module):
    """A backbone of an own package: the mean colours of a few stripes."""

    input_config = {"size": (16, 16)}  # noqa: RUF012 - as users write it

    def __init__(self, stripes: int = 4) -> None:
        super().__init__()
        self.stripes = stripes
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, pixels: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(pixels, (self.stripes, 1))
        return self.scale * means.flatten(1)


def test_a_backbone_of_an_own_package(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stripes = "{_target_: tests.engine.test_own_packages.Stripes, stripes: 3}"
    overrides = [
        "experiment=sample_images", "data.rows={train: 60, val: 20, test: 30}",
        "trainer.max_epochs=1",
        "model=image_classifier", f"model.backbone={stripes}",
    ]  # fmt: skip
    refused = train(*overrides, folder=tmp_path / "refused")
    assert "if you trust the package tests" in refused.error
    monkeypatch.setenv(VARIABLE, "tests")
    ended = train(*overrides)
    assert ended.code == 0, ended.err
    assert evaluate(ended.folder, None) == 0
    parameters = RunFolder(ended.folder).read_json("metrics.json")["parameters"]
    assert parameters["total"] == 1 + (9 + 1) * 10


def test_a_backbone_is_a_module_in_python() -> None:
    task = ImageClassifier(Stripes(), 3)
    assert task.hparams["num_classes"] == 3
    assert "backbone" not in task.hparams
    assert task.backbone_config() == {}


class SignDescent(torch.optim.Optimizer):
    """An optimizer of an own package; `fused` means something else here."""

    def __init__(self, params: Any, weight_decay: float = 0.0, fused: int = 3) -> None:
        super().__init__(params, {"lr": 1e-3, "weight_decay": weight_decay, "fused": fused})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(group["lr"] * weight.grad.sign())
        return loss


def root_decay(step: int, total: int, power: float = 0.5) -> float:
    """A schedule of an own package."""
    return float((1 - step / max(1, total)) ** power)


class FileLogger(Logger):
    """A logger of an own package."""

    name, version = "file", "0"

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = Path(path)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        with self.path.open("a") as file:
            file.write(f"{step} {sorted(metrics)}\n")

    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        self.path.write_text(f"{sorted(params)}\n")


class Shouting(TextClassifier):
    """A task of an own package; its argument `patience` is no key of version 0.1."""

    def __init__(self, patience: int = 1, **settings: Any) -> None:
        super().__init__(**settings)
        self.patience = patience


class HeadOfFeatures(nn.Module):
    """A head that takes its features for a tensor."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.output = nn.Linear(width, outputs)

    def forward(self, features: Any) -> Tensor:
        logits: Tensor = self.output(features)
        return logits


class HeadOfTooMany(HeadOfFeatures):
    """A head with one logit more than there are classes."""

    def forward(self, features: Any) -> Tensor:
        logits: Tensor = self.output(features.values)
        return torch.cat([logits, logits[:, :1]], dim=1)


def test_optimizer_schedule_logger_and_task_of_an_own_package(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    here = "tests.engine.test_own_packages"
    log = tmp_path / "own.log"
    ended = train(
        *SAMPLE, "trainer.max_epochs=1", f"model._target_={here}.Shouting", "+model.patience=5",
        f"model.optimizer._target_={here}.SignDescent", "+model.optimizer.fused=2",
        f"model.schedule._target_={here}.root_decay", "+model.schedule.power=2.0",
        f"+logger.own={{_target_: {here}.FileLogger, path: {log}}}",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "model.schedule.warmup=0.1 (configs/schedule/linear.yaml) is dropped" in ended.err
    folder = RunFolder(ended.folder)
    assert float(folder.read_history()[-1]["lr/head"]) < 1e-3  # quadratic, near its end
    assert "val/acc" in log.read_text()
    assert "patience: 5" in folder.config.read_text()
    checkpoint = torch.load(folder.best_checkpoint, weights_only=True)
    assert set(checkpoint["optimizer_states"][0]["param_groups"][0]) >= {"fused", "name", "lr"}
    assert evaluate(ended.folder, None) == 0


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("HeadOfFeatures", "model.head: HeadOfFeatures fails on the features (linear()"),
        ("HeadOfTooMany", "returned logits of shape"),
    ],
)
def test_a_head_that_does_not_fit_is_named(
    head: str, message: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    ended = train(
        "experiment=sample_images", "data.rows={train: 60, val: 20, test: 30}",
        f"model.head._target_=tests.engine.test_own_packages.{head}",
    )  # fmt: skip
    assert ended.code == 1
    assert message in ended.error


def test_the_cache_key_covers_the_arguments_of_an_own_backbone() -> None:
    attributes = [plain_attributes(Stripes(stripes)) for stripes in (3, 3, 4)]
    assert attributes[0] == attributes[1] != attributes[2]
