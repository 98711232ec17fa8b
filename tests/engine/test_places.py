"""A place of the config builds only what it expects, whoever wrote the config.

Each place is tried with more than twenty names: functions and classes that act when they are
called, and sound classes of another place.
"""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from engine.checkpoints import CheckpointError
from engine.config import places
from engine.config.errors import ConfigError
from engine.config.instantiating import build_object
from engine.config.objects import object_faults
from engine.config.places import PLACES, place_of, resolve_target
from engine.evaluation import evaluate
from engine.predict import open_run
from engine.sweeps.resuming import resumed_overrides
from run_folders.own_packages import VARIABLE
from run_folders.sweep import Sweep
from run_folders.untrusted import DamagedFileError
from tests.conftest import ROOT, SAMPLE, Train

TARGETS = [
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "shutil.rmtree",
    "pickle.loads",
    "logging.FileHandler",
    "importlib.import_module",
    "functools.partial",
    "hydra.utils.instantiate",
    "torch.load",
    "torch.hub.load",
    "torch.package.PackageImporter",
    "torch.jit.load",
    "torch.utils.cpp_extension.load",
    "torch.distributed.nn.RemoteModule",
    "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler",
    "torch.nn.modules.module.Module",
    "torch.optim.swa_utils.AveragedModel",
    "transformers.AutoModel.from_pretrained",
    "datasets.load_dataset",
    "timm.models.create_model",
    "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.plugins.TorchCheckpointIO",
    "lightning_modules.networks.backbones.text.text_encoder",
    "engine.processes.supervisor.Processes",
    "no_such_package.Thing",
]
PATHS = [name.replace("*", "own") for name in PLACES]
# Of a run folder, only these are built.
BUILT = ["data", "model", "model.head", "model.loss", "model.optimizer", "model.schedule"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("path", PATHS)
def test_a_place_builds_nothing_that_it_does_not_expect(
    path: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only modules of the place are imported, and nothing is called."""
    node: dict[str, Any] = {"_target_": target}
    cfg: dict[str, Any] = {}
    inner = cfg
    *parents, last = path.split(".")
    for name in parents:
        inner = inner.setdefault(name, {})
    inner[last] = node
    imported = []

    def recording(name: str) -> Any:
        imported.append(name)
        return importlib.import_module(name)

    # Only the imports of `places` are recorded: what a module imports itself is its own.
    monkeypatch.setattr(places, "importlib", SimpleNamespace(import_module=recording))
    # As validation sees the command line, files and the record of a sweep ...
    faults = dict(object_faults(cfg, ""))
    assert f"received '{target}'" in faults[f"{path}._target_"]
    # ... and as run folders are built.
    with pytest.raises(ConfigError, match=f"received '{re.escape(target)}'"):
        build_object(OmegaConf.create(cfg), path)
    place = place_of(path)
    assert place is not None
    expected = (*place.modules, place.base.rpartition(".")[0])
    assert all(f"{name}.".startswith(tuple(f"{one}." for one in expected)) for name in imported)


def overrides_with(named: dict[str, str]) -> list[str]:
    """Overrides that name a target at each place, also where the config has no such key."""
    return [f"++{path}._target_={target}" for path, target in named.items()]


TYPED = [path for path in PATHS if not path.startswith(("trainer.", "model.backbone"))]


@pytest.mark.parametrize("first", range(0, len(TARGETS), len(TYPED)))
def test_nothing_is_built_from_the_command_line_or_a_config_file(
    first: int, train: Train, tmp_path: Path
) -> None:
    """Each run names another target at each place; all targets are used."""
    named = {path: TARGETS[(first + i) % len(TARGETS)] for i, path in enumerate(TYPED)}
    ended = train(*overrides_with(named))
    assert ended.code == 1
    for path, target in named.items():
        assert f"{path}._target_ (the command line): received '{target}'" in ended.error
    experiment = tmp_path / "configs" / "experiment" / "evil.yaml"
    experiment.parent.mkdir(parents=True)
    nodes = OmegaConf.create()
    for path, target in named.items():
        OmegaConf.update(nodes, path, {"_target_": target}, force_add=True)
    experiment.write_text("# @package _global_\n" + OmegaConf.to_yaml(nodes))
    ended = train("experiment=evil", folder=tmp_path / "file")
    assert ended.code == 1
    for path, target in named.items():
        assert f"{path}._target_ (configs/experiment/evil.yaml): received '{target}'" in ended.error


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.processes import run

    folder = tmp_path_factory.mktemp("trained") / "run"
    code, _, errors = run(
        *SAMPLE, "trainer.max_epochs=1", f"hydra.run.dir={folder}", cwd=folder.parent
    )
    assert code == 0, errors
    return folder


def changed(trained: Path, folder: Path, path: str, value: object) -> Path:
    """A copy of a run folder with another value in its config."""
    shutil.copytree(trained, folder)
    cfg = OmegaConf.load(folder / "config.yaml")
    OmegaConf.update(cfg, path, value, merge=False, force_add=True)
    OmegaConf.save(cfg, folder / "config.yaml")
    return folder


@pytest.mark.parametrize(("at", "target"), list(enumerate(TARGETS)))
def test_nothing_is_built_from_a_run_folder(
    trained: Path, tmp_path: Path, at: int, target: str
) -> None:
    """Each target is tried at one of the places that are built; see the first test for all."""
    path = BUILT[at % len(BUILT)]
    folder = changed(trained, tmp_path / "run", path, {"_target_": target})
    with pytest.raises(ConfigError, match=f"received '{re.escape(target)}'"):
        evaluate(folder, None)


@pytest.mark.parametrize(
    "path", ["model.pooling", "data.files", "model.head.dropout", "trainer.max_steps"]
)
def test_an_object_where_none_is_expected_is_not_built(
    trained: Path, tmp_path: Path, path: str
) -> None:
    folder = changed(trained, tmp_path / "run", path, {"x": [{"_target_": "os.system"}]})
    with pytest.raises(ConfigError, match="no object is expected here"):
        evaluate(folder, None)


def test_nothing_is_built_from_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    file = folder / "checkpoints" / "best.ckpt"
    checkpoint = torch.load(file, weights_only=True)
    for target in TARGETS:
        nested = {"model_type": "bert", "hidden_act": {"_target_": target}}
        for backbone in ({"_target_": target}, nested):
            checkpoint["thaw"]["backbone"] = json.dumps(backbone)
            torch.save(checkpoint, file)
            with pytest.raises(CheckpointError, match="names a class"):
                open_run(folder)


@pytest.mark.parametrize("first", range(0, len(TARGETS), len(TYPED)))
def test_nothing_is_built_from_the_record_of_a_sweep(
    first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import train as entry

    named = {path: TARGETS[(first + i) % len(TARGETS)] for i, path in enumerate(TYPED)}
    sweep = Sweep(tmp_path / "sweep")
    sweep.path.mkdir()
    sweep.begin(["seed=1", *overrides_with(named)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", f"sweep.resume={sweep.path}"])
    assert entry.main() == 1
    errors = capsys.readouterr().err
    for path, target in named.items():
        assert f"{path}._target_ (the command line): received '{target}'" in errors


UNTRUSTED = [
    "--config-dir=/tmp/evil",
    "-cd=/tmp/evil",
    "hydra.searchpath=[file:///tmp/evil]",
    "hydra.sweeper._target_=os.system",
    "hydra.sweeper={_target_: os.system}",
    "hydra.sweeper.storage=mysql://evil/x",
    "+hydra.launcher={_target_: os.system}",
    "hydra.launcher={setup: [rm]}",
    "hydra.launcher.setup=[rm -r ~]",
    "hydra.launcher.srun_args=[--task-prolog=/tmp/x]",
    "hydra.launcher.partition='x\ntouch y'",
    "hydra.callbacks.evil={_target_: os.system}",
    "+hydra.job_logging.handlers.evil={(): os.system}",
    "hydra/job_logging=../evil",
    "hydra.job.env_set.PATH=/tmp/evil",
    "hydra.sweep.subdir=../../evil",
    "hydra.sweep.subdir='../evil'",
    "hydra.sweep.subdir=/tmp/evil",
    'hydra.sweep.subdir="/tmp/${hydra.job.num}"',
    "hydra.sweep.subdir=~/evil",
    "hydra.job.config.override_dirname.kv_sep=/../",
    "~hydra.callbacks",
    "experiment=../../../tmp/evil",
    "+experiment=choice(a,../evil)",
    "+experiment@hydra.callbacks.x=evil",
    "+hydra/launcher@hydra.callbacks.x=basic",
    "+logger.x.tracking_uri=http://evil/${oc.env:HOME}",
    "+model.x=${oc.${model.pooling}:HOME}",
    "+model.x=${${m}:HOME}",
]
TRUSTED = [
    "seed=1,2",
    "experiment=a,b",
    "head=choice(linear,bigru)",
    "monitor=val/loss",
    "model.backbone=owner/name",
    "model.num_classes=${data.num_classes}",
    "data.files={train: a.csv, val: null, test: b.csv}",
    "hydra/launcher=joblib",
    "hydra/sweeper=optuna",
    "hydra.launcher.n_jobs=2",
    "hydra.launcher.gres=gpu:1",
    "hydra.sweep.subdir='jobs/${hydra.job.num}/${hydra.job.override_dirname}'",
    "hydra.job.config.override_dirname.item_sep=/",
    "hydra.sweeper.n_trials=3",
    "hydra.sweeper.space={model.lr: {type: float, low: 1e-4, high: 1e-1, log: true}}",
]


def test_the_record_of_a_sweep_sets_nothing_that_runs_code_or_reads_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is not taken is named, so that its owner can set it again."""
    sweep = Sweep(tmp_path)
    sweep.begin([*TRUSTED, *UNTRUSTED])
    resumed = resumed_overrides([f"sweep.resume={tmp_path}"])
    assert resumed == ["-m", *TRUSTED, f"hydra.sweep.dir={tmp_path}"]
    errors = capsys.readouterr().err
    for override in UNTRUSTED:
        shown = override.replace("\n", "\\n")
        assert f"{shown} is not taken from sweep.json" in errors


@pytest.mark.parametrize("words", [3, [3], {"a": 1}, "seed=1"])
def test_a_damaged_record_of_a_sweep_is_named(words: object, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"id": "x", "words": words}))
    with pytest.raises(DamagedFileError, match=r"sweep\.json is damaged"):
        resumed_overrides([f"sweep.resume={tmp_path}"])


def test_a_config_cannot_allow_a_package(train: Train) -> None:
    ended = train(f"+hydra.job.env_set.{VARIABLE}=tests")
    assert ended.code == 1
    assert f"a config cannot set {VARIABLE}" in ended.error


def test_nothing_is_named_that_was_not_translated(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An own task may have an argument of the same name as a key of version 0.1."""
    monkeypatch.setenv(VARIABLE, "tests")
    own = "model._target_=tests.engine.test_own_packages.Shouting"
    ended = train(own, "+model.patience=x")
    assert "since version 0.2" not in ended.err
    assert "model.patience (the command line): received 'x'" in ended.error
    ended = train("model.patience=x", folder=tmp_path / "ours")
    assert "model.patience=x: since version 0.2 this is model.schedule.patience=x" in ended.err


def test_other_applications_of_hydra_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "no_such_package")
    (tmp_path / "own.yaml").write_text("a: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("own").a == 1


def test_a_run_folder_reads_no_environment_variable(trained: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    config = folder / "config.yaml"
    text = config.read_text()
    for value in ("${oc.env:HOME}", "\\${oc.env:HOME}", "\\\\${oc.env:HOME}"):
        config.write_text(text + f"evil: '{value}'\n")
        assert open_run(folder).cfg.evil == value


RESERVED = {
    "+model.head.width=3": "the engine passes it",
    "+model.optimizer.lr=3": "set model.lr",
    "+model.optimizer.weight_decay=3": "model.weight_decay",
    "+model.optimizer.params=[]": "the engine passes it",
    "+model.loss.reduction=sum": "needs the mean",
    "+trainer.plugins=[x]": "cannot be set here",
    "+trainer.callbacks=[x]": "cannot be set here",
    "+trainer.logger=false": "cannot be set here",
    "+model.head._partial_=true": "no place of the config takes this key",
    "+model._recursive_=false": "no place of the config takes this key",
    "+model.head._args_=[3]": "no place of the config takes this key",
    "+data._convert_=all": "no place of the config takes this key",
    "+model.pooling={_target_: torch.nn.Linear}": "no object is expected here",
}


def test_reserved_keys_are_faults(train: Train) -> None:
    ended = train(*RESERVED)
    assert ended.code == 1
    for override, fault in RESERVED.items():
        key = override.lstrip("+").partition("=")[0]
        line = next(line for line in ended.error.splitlines() if line.strip().startswith(key))
        assert fault in line


def test_a_class_must_take_what_the_engine_passes(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "tests")
    ended = train("model.head._target_=tests.engine.test_places.HeadWithoutWidth")
    assert "does not take width" in ended.error
    ended = train(
        "model.schedule._target_=tests.engine.test_places.not_a_schedule",
        folder=tmp_path / "schedule",
    )
    assert "does not take step and total" in ended.error


class HeadWithoutWidth(torch.nn.Module):
    """A head that cannot be built."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs


def not_a_schedule(epoch: int) -> float:
    """A function that is no schedule."""
    return float(epoch)


def test_sound_names_are_found() -> None:
    for path, name in {
        "data": "datamodules.text.TextDataModule",
        "model": "lightning_modules.segmenter.Segmenter",
        "model.head": "lightning_modules.networks.heads.MLPHead",
        "model.loss": "torch.nn.CrossEntropyLoss",
        "model.optimizer": "timm.optim.Lion",
        "model.schedule": "lightning_modules.optim.schedules.cosine",
        "callbacks.own": "lightning.pytorch.callbacks.LearningRateMonitor",
        "logger.own": "lightning.pytorch.loggers.CSVLogger",
        "trainer": "lightning.Trainer",
        "trainer.strategy": "lightning.pytorch.strategies.DDPStrategy",
        "trainer.profiler": "lightning.pytorch.profilers.SimpleProfiler",
    }.items():
        assert resolve_target(name, path).__name__ == name.rpartition(".")[2]
    assert place_of("model.head.dropout") is None


@pytest.mark.parametrize(
    ("path", "name", "missing"),
    [
        ("data", "datamodules.base.TransferDataModule", "divide, read_splits, reference"),
        (
            "model",
            "lightning_modules.base.Task",
            "default_loss, metric_names, new_totals, shared_step",
        ),
    ],
)
def test_a_class_without_all_methods_is_refused(path: str, name: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"is abstract: it does not define {missing}$"):
        resolve_target(name, path)


def test_contributing_has_the_table() -> None:
    """Place, base class, modules, injected arguments, refused keys."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [
        [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if re.match(r"\| `(data|model|depth|callbacks|logger|trainer)", line)
    ]
    expected = [
        [
            [name],
            [place.base] if place.base else [],
            list(place.modules),
            list(place.injected),
            list(place.refused),
        ]
        for name, place in PLACES.items()
    ]
    assert rows == expected
