"""Behaviour equals that of version 0.1, apart from the changes that are listed here."""

import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf
from transformers import BeitConfig, BeitForSemanticSegmentation

from engine.old_names import translate_config
from run_folders.nested import leaves
from run_folders.run_folder import RunFolder
from tests.conftest import Ended, Train
from tests.golden.recording import recorded_training
from tests.images import cifar_like
from tests.masks import segmentation_folder
from tests.test_experiments import EXPERIMENTS, IMAGES, SCENES, TINY_BEIT

GOLDEN = Path(__file__).resolve().parent
# If set, golden data are recorded again. CHANGELOG then states the reason.
RECORD = os.environ.get("THAW_RECORD_GOLDEN") == "1"
SAMPLES = {
    "sample_text": (),
    "sample_images": ("experiment=sample_images",),
    "sample_scenes": ("experiment=sample_scenes",),
}
OLD = sorted({*EXPERIMENTS} - {"cifar10_deit_tome", "cifar10_fdvit", "cifar10_token_learner"})
# Key -> its intended changes since version 0.1, (before, now), apart from those that
# `translate_config` makes. See CHANGELOG.
CHANGED: dict[str, list[tuple[Any, Any]]] = {
    # A backbone of random weights has no tokenizer, so the default is not the backbone's mapping.
    "data.tokenizer": [("${model.backbone}", "${thaw.pretrained_name:${model.backbone}}")],
    "data.label_separator": [(..., None)],
    **{f"data.{key}": [(..., None)] for key in ("label_map", "delimiter", "quoting", "encoding")},
    **{f"data.{key}": [(..., None)] for key in ("test_fraction", "group_column")},
    "data.convert": [(..., False)],
    **{f"model.{key}": [(..., None)] for key in ("merge_tokens", "learned_tokens")},
    "model.reconstruction": [(..., 0.0)],
    "model.reconstruction_masked": [(..., 0.2)],
    "data.check": [(..., False)],
    "estimate": [(..., False)],
    "samples": [(..., None)],
    "callbacks.unfreezing.last_blocks": [(..., None)],
    "data.mask_orientation": [(..., None)],
    # They follow from the kind of task.
    "monitor": [
        (metric, "${thaw.monitor:${model._target_}}") for metric in ("val/acc", "val/miou")
    ],
    # It follows the callback's own metric.
    "callbacks.early_stopping.mode": [("${mode}", "${thaw.mode:${.monitor}}")],
    "mode": [("max", "${thaw.mode:${monitor}}")],
}
_HEADS, _WARMING_UP, _DECAYING = (
    {"linear", "bigru", "mlp"},
    {"linear", "constant", "onecycle"},
    {"exponential", "plateau"},
)
# Key of the model in version 0.1 -> its key now, the key of the word that chose what reads it, and
# the words whose classes read it.
READ: dict[str, tuple[str, str, set[str]]] = {
    "hidden": ("head.hidden", "head", {"bigru", "mlp"}),
    "dropout": ("head.dropout", "head", _HEADS),
    "momentum": ("optimizer.momentum", "optimizer", {"sgd"}),
    "label_smoothing": ("loss.label_smoothing", "optimizer", {"adamw", "sgd"}),
    "warmup": ("schedule.warmup", "schedule", _WARMING_UP),
    "decay": ("schedule.decay", "schedule", _DECAYING),
    "min_lr": ("schedule.min_lr", "schedule", _DECAYING),
    "patience": ("schedule.patience", "schedule", {"plateau"}),
    "monitor": ("schedule.monitor", "schedule", {"plateau"}),
    "mode": ("schedule.mode", "schedule", {"plateau"}),
}
# Part of the model -> word of version 0.1, or task -> the class or function that it stood for.
CLASSES = {
    "head": {"linear": "LinearHead", "bigru": "BiGRUHead", "mlp": "MLPHead"},
    "optimizer": {"adamw": "AdamW", "sgd": "SGD"},
    "schedule": {name: name for name in ("linear", "constant", "onecycle", "exponential")},
    "loss": {
        "TextClassifier": "CrossEntropy",
        "ImageClassifier": "CrossEntropy",
        "Segmenter": "UpsampledCrossEntropy",
    },
}
# Key of metrics.json that was added after version 0.1 -> its values; see CHANGELOG.
ADDED = {
    "kind": {"classification", "segmentation"},
    "loss": {
        "lightning_modules.losses.classification.CrossEntropy",
        "lightning_modules.losses.segmentation.UpsampledCrossEntropy",
    },
}
TIMES = {"seconds", "samples_per_second"}
# Equal on any machine: counts of the data, the steps and the network's parameters.
COUNTS = {"epoch", "step", "n", "support", "pixels", "unlabelled_pixels", "total", "trainable"}


def golden(name: str, found: Any) -> Any:
    """Return the golden value of this name; when recording, `found`."""
    path = GOLDEN / name
    if RECORD:
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    return json.loads(path.read_text())


def shrunk(name: str, tmp_path: Path, backbone: Path, covid_dir: Path) -> list[str]:
    """Return overrides that run an experiment with a small network on small data."""
    overrides = [f"experiment={name}"]
    if name.startswith("sample_"):
        rows = "{train: 96, val: 8, test: 6}"
        return [
            *overrides,
            f"data.rows={rows}",
            "data.batch_size=4",
            *([f"model.backbone={IMAGES[name]}"] if name in IMAGES else []),
        ]
    if name in SCENES:
        splits = (
            {"validation": 6} if name.endswith("pretrained") else {"training": 24, "validation": 6}
        )
        segmentation_folder(tmp_path / "scene_parse_150", splits, shift=1)
        torch.manual_seed(0)
        BeitForSemanticSegmentation(BeitConfig(**TINY_BEIT, num_labels=150)).save_pretrained(
            tmp_path / "network"
        )
        size = ["data.size=32", "data.num_workers=0", "data.batch_size=2", "data.val_fraction=0.1"]
        return [
            *overrides,
            f"paths.data_dir={tmp_path}",
            f"model.backbone={tmp_path / 'network'}",
            *size,
        ]
    if name in IMAGES:
        return [
            *overrides,
            f"paths.data_dir={cifar_like(tmp_path, 60, 30)}",
            f"model.backbone={IMAGES[name]}",
            "data.batch_size=4",
        ]
    return [
        *overrides,
        f"paths.data_dir={covid_dir}",
        f"model.backbone={backbone}",
        *(["model.head.hidden=8"] if "bigru" in name else []),
        "data.batch_size=4",
    ]


@pytest.mark.parametrize("name", OLD)
def test_an_experiment_trains_the_same_as_in_version_0_1(
    name: str, train: Train, tmp_path: Path, tiny_backbone: Path, covid_dir: Path
) -> None:
    facts: dict[str, Any] = {}
    with recorded_training(facts):
        ended = train(
            *shrunk(name, tmp_path, tiny_backbone, covid_dir), "trainer.precision=32-true"
        )
        assert ended.code == 0, (
            ended.err
        )  # reached by experiments that train nothing; the others stop earlier
    expected = golden(f"training/{name}.json", facts)
    assert facts == expected


def same_machine(machine: dict[str, str]) -> bool:
    """Return whether metrics can be the same to the last digit."""
    return machine == this_machine()


def this_machine() -> dict[str, str]:
    flags = (
        re.search(r"^flags\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if Path("/proc/cpuinfo").exists()
        else None
    )
    vector = (
        sorted(set(flags[1].split()) & {"avx2", "avx512f", "avx512_bf16", "amx_bf16"})
        if flags
        else []
    )
    return {
        "machine": platform.machine(),
        "vectors": " ".join(vector),
        "torch": torch.__version__.split("+")[0],
        "threads": str(torch.get_num_threads()),
        "sum": str(sum([0.1] * 10)),  # Python 3.12 and later compensate rounding errors
    }


def metrics(ended: Ended) -> dict[str, Any]:
    """Return the metrics and the history of a run, without times."""
    assert ended.code == 0, ended.err
    folder = RunFolder(ended.folder)
    metrics = folder.read_json("metrics.json")
    for key, values in ADDED.items():
        assert metrics.pop(key) in values
    return {
        "metrics": {k: v for k, v in metrics.items() if k not in ("seconds", "bytes")},
        "history": without_times(folder.read_history()),
    }


def without_times(history: list[dict[str, str]]) -> list[dict[str, str]]:
    return [
        {key: value for key, value in row.items() if key.split("/")[-1] not in TIMES}
        for row in history
    ]


def close(a: Any, b: Any, key: str = "") -> bool:
    """Return whether nested values agree as closely as the results of two machines.

    Other vector instructions add the same numbers in another order. The last digits of a sum then
    differ, and each training step builds on them. A sample near the border of two classes may be
    predicted differently. In a stage of few samples, one sample changes the metrics by several
    percent. So metrics may differ by 0.1 or 20 %, and the best epoch may be another one. Samples
    may be in another cell of their row of the confusion matrix, or in another calibration bin.
    Counts must be equal.

    Args:
        a: Numbers, strings, and lists and dicts of them.
        b: The expected values.
        key: Their key in the structure around them.
    """
    name = key.split("/")[-1]
    if name == "best":
        a, b = ({**best, "epoch": None} for best in (a, b))
    if name == "confusion_matrix":
        return [sum(row) for row in a] == [sum(row) for row in b]
    if name == "calibration":
        return sum(bin_["count"] for bin_ in a) == sum(bin_["count"] for bin_ in b)
    if name in COUNTS:
        return bool(a == b)
    if isinstance(a, dict):
        return (
            isinstance(b, dict)
            and a.keys() == b.keys()
            and all(close(a[inner], b[inner], inner) for inner in a)
        )
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(close, a, b))
    try:
        return float(a) == pytest.approx(float(b), rel=0.2, abs=0.1)
    except (TypeError, ValueError):
        return bool(a == b)


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        ({"test": {"acc": 0.93}}, True),
        ({"test": {"acc": 0.5}}, False),
        ({"test": {"n": 9}}, False),
        ({"test": {"confusion_matrix": [[3, 2], [1, 4]]}}, True),
        ({"test": {"confusion_matrix": [[4, 2], [0, 4]]}}, False),
        ({"test": {"calibration": [{"count": 10}]}}, True),
        ({"test": {"calibration": [{"count": 9}]}}, False),
        ({"best": {"epoch": 1}}, True),
        ({"best": {"monitor": "val/loss"}}, False),
        ({"history": [{"epoch": "0", "step": "4", "val/n": "9"}]}, False),
        ({"history": [{"epoch": "0", "step": "5", "val/n": "8"}]}, False),
        ({"history": [{"epoch": "1", "step": "4", "val/n": "8"}]}, False),
        ({"history": []}, False),
    ],
)
def test_close_requires_equal_counts_and_similar_metrics(
    other: dict[str, Any], agrees: bool
) -> None:
    counts = {
        "n": 10,
        "confusion_matrix": [[4, 1], [1, 4]],
        "calibration": [{"count": 4}, {"count": 6}],
    }
    known: dict[str, Any] = {
        "test": {"acc": 0.9, **counts},
        "best": {"epoch": 0, "monitor": "val/acc"},
        "history": [{"epoch": "0", "step": "4", "val/n": "8"}],
    }
    found = {
        key: {**value, **other.get(key, {})} if isinstance(value, dict) else other.get(key, value)
        for key, value in known.items()
    }
    assert close(known, known)
    assert close(found, known) is agrees


@pytest.mark.parametrize("name", SAMPLES)
def test_two_epochs_of_a_sample_have_the_metrics_of_version_0_1(name: str, train: Train) -> None:
    found = {"machine": this_machine(), **metrics(train(*SAMPLES[name], "trainer.max_epochs=2"))}
    expected = golden(f"samples/{name}.json", found)
    if same_machine(expected["machine"]):
        assert found == expected
    else:
        assert close(
            {k: v for k, v in found.items() if k != "machine"},
            {k: v for k, v in expected.items() if k != "machine"},
        )


@pytest.mark.parametrize("name", ["default", *OLD])
def test_a_config_differs_only_by_the_listed_changes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import train as entry

    chosen = [] if name == "default" else [f"experiment={name}"]
    monkeypatch.setattr(sys, "argv", ["train.py", "--cfg", "job", *chosen])
    assert entry.main() == 0
    text = capsys.readouterr().out
    path = GOLDEN / "configs" / f"{name}.yaml"
    if RECORD:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    now, before = leaves(yaml.safe_load(text)), leaves(translated(path))
    differ = {
        key for key in now.keys() | before.keys() if now.get(key, ...) != before.get(key, ...)
    }
    assert differ <= CHANGED.keys()
    for key in differ:
        assert (before.get(key, ...), now.get(key, ...)) in CHANGED[key]


def translated(path: Path) -> dict[str, Any]:
    """Return a config of version 0.1 under the present names; fails if they cannot express it."""
    cfg = OmegaConf.create(yaml.safe_load(path.read_text()))
    translate_config(cfg, to_train=True)
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    return dict(values)


@pytest.mark.parametrize("name", ["default", *OLD])
def test_the_translation_of_a_config_keeps_all_that_version_0_1_read(name: str) -> None:
    path = GOLDEN / "configs" / f"{name}.yaml"
    before, now = yaml.safe_load(path.read_text())["model"], translated(path)["model"]
    for key, (new, word, words) in READ.items():
        expected = before.get(key, ...) if before.get(word) in words else ...
        assert leaves(now).get(new, ...) == expected, key
    assert not READ.keys() & now.keys()
    words = {**before, "loss": before["_target_"].rpartition(".")[2]}
    classes = {part: CLASSES[part][words[part]] for part in CLASSES if part in words}
    found = {part: now[part]["_target_"].rpartition(".")[2] for part in CLASSES if part in now}
    assert found == classes
