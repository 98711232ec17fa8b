"""Optimizer steps equal those of PyTorch, and two replicas take the steps of one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

pytest.importorskip("tensorflow", reason="the extra keras is not installed")

import keras
import tensorflow as tf

from keras_bert.training.optimization import BertAdamW, WarmupLinearDecay
from tests.conftest import made_rows, write_csv
from tests.keras_bert.conftest import SMALL
from tests.processes import run

TWO_DEVICES = """
import sys
import keras_bert, keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
"""

RUNS = """
from keras_bert.command_line import main
folder, *rest = sys.argv[1:]
for strategy in ("none", "mirrored"):
    assert main(["finetune", *rest, "--strategy", strategy, "--out", f"{folder}/{strategy}"]) == 0
"""

REPLICAS = """
from keras_bert.data.batching import pipeline
from keras_bert.training.trainable import TrainableModel
from keras_bert.network.tasks import PretrainingModel
from keras_bert.network.model import create_BERT
from keras_bert.training.optimization import BertAdamW, WarmupLinearDecay
from keras_bert.training.pretraining import measure_pretraining
from types import SimpleNamespace
rng = np.random.default_rng(0)
ids = rng.integers(5, 50, (11, 8)).astype(np.int32)
x = {"input_ids": ids, "token_type_ids": ids * 0, "masked_positions": rng.integers(0, 8, (11, 2)).astype(np.int32)}
# Texts of one replica have more chosen tokens than those of the other, so a mean of means would
# differ.
chosen = np.ones((11, 2), np.float32); chosen[:2, 1] = 0; chosen[5:8, 1] = 0
y = {"mlm": rng.integers(5, 50, (11, 2)).astype(np.int32), "chosen": chosen}
results = []
for devices in (["CPU:0"], ["CPU:0", "CPU:1"]):
    keras.utils.set_random_seed(0)
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        network = PretrainingModel(create_BERT(50, 16, 8, 1, 2, 16, drop_rate=0.0))
        model = TrainableModel(SimpleNamespace(network=network, measure=measure_pretraining, names=("loss", "acc")))
        optimizer = BertAdamW(WarmupLinearDecay(1e-2, 10, 2), 0.1, 0.05)
        model.compile(optimizer=optimizer)
        optimizer.build(network.trainable_variables)
    def gather(plan):
        inputs, targets = tf.nest.map_structure(lambda array: tf.gather(array, plan["rows"]), (x, y))
        return inputs, {**targets, "share": targets["chosen"] / tf.reduce_sum(targets["chosen"])}
    plans = [{"rows": np.arange(6)}, {"rows": np.arange(6, 11)}] * 2
    model.fit(pipeline(lambda: iter(plans), gather, 4), steps_per_epoch=4, epochs=1, verbose=0, shuffle=False)
    results.append((model.epoch_metrics(), [np.asarray(weight) for weight in network.weights]))
(one, ours), (two, theirs) = results
assert one["n"] == two["n"] == 34, (one, two)
assert abs(one["loss"] - two["loss"]) < 1e-5, (one, two)
print(max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs)))
"""


def test_steps_equal_those_of_pytorch() -> None:
    """AdamW with two learning rates, warm-up, decay of matrices only, clipping and an embedding."""
    rng = np.random.default_rng(0)
    table, matrix, bias = (
        rng.normal(size=shape).astype(np.float32) for shape in ((6, 4), (4, 3), (3,))
    )
    rows, target = np.array([0, 1, 1, 1, 5]), rng.normal(size=(5, 3)).astype(np.float32)
    steps, warmup, clip = 8, 2, 0.5

    theirs = [torch.nn.Parameter(torch.tensor(array)) for array in (table, matrix, bias)]
    groups = [
        {"params": [theirs[0]], "lr": 0.02, "weight_decay": 0.1},
        {"params": [theirs[1]], "lr": 0.05, "weight_decay": 0.1},
        {"params": [theirs[2]], "lr": 0.05, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups)
    factor = lambda step: (  # noqa: E731
        (step + 1) / (warmup + 1) if step < warmup else (steps - step) / (steps - warmup)
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(steps):
        loss = ((theirs[0][rows] @ theirs[1] + theirs[2] - torch.tensor(target)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        assert torch.nn.utils.clip_grad_norm_(theirs, clip) > clip  # so that clipping is tested
        optimizer.step()
        schedule.step()

    arrays = {"table": table, "kernel": matrix, "bias": bias}
    ours = [keras.Variable(array, name=name) for name, array in arrays.items()]
    adam = BertAdamW(WarmupLinearDecay(0.02, steps, warmup), 0.1, clip, scaled=ours[1:], factor=2.5)
    adam.build(ours)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            states = tf.gather(ours[0].value, rows) @ ours[1].value + ours[2].value
            mine = tf.reduce_mean((states - target) ** 2)
        gradients = tape.gradient(mine, [variable.value for variable in ours])
        assert isinstance(gradients[0], tf.IndexedSlices)
        adam.apply(gradients, ours)
    for variable, parameter in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(variable, parameter.detach(), rtol=1e-4, atol=1e-5)
    assert np.abs(np.asarray(ours[1]) - matrix).max() > 0.05


def test_the_schedule_rises_and_falls() -> None:
    schedule = WarmupLinearDecay(1.0, 10, 4)
    rates = [float(schedule(step)) for step in range(11)]
    np.testing.assert_allclose(rates[:4], [0.2, 0.4, 0.6, 0.8], rtol=1e-6)
    assert rates[4] == 1.0
    np.testing.assert_allclose(np.diff(rates[4:]), -1 / 6, rtol=1e-5)
    assert rates[10] == 0
    assert [float(WarmupLinearDecay(**schedule.get_config())(step)) for step in range(11)] == rates


def on_two_devices(script: str, folder: Path, *arguments: str) -> str:
    """Run a script with two logical devices; returns its stdout."""
    path = folder / "script.py"
    path.write_text(TWO_DEVICES + script)
    code, out, errors = run(*arguments, program=path, server="tensorflow", CUDA_VISIBLE_DEVICES="")
    assert code == 0, errors[-2000:]
    return out


def test_two_replicas_take_the_steps_of_one(tmp_path: Path) -> None:
    assert float(on_two_devices(REPLICAS, tmp_path).splitlines()[-1]) < 1e-5


def test_two_devices_share_a_run(tmp_path: Path) -> None:
    """The curve equals that of one device, except for rounding.

    The last batch cannot be divided equally.
    """
    tables = [
        write_csv(tmp_path / f"{name}.csv", made_rows(37, seed))
        for name, seed in (("train", 1), ("val", 2))
    ]
    arguments = [
        "--train",
        str(tables[0]),
        "--val",
        str(tables[1]),
        "--text-column",
        "tweet",
        "--batch-size",
        "12",
        "--epochs",
        "2",
    ]
    on_two_devices(
        RUNS,
        tmp_path,
        str(tmp_path),
        *arguments,
        *SMALL,
        "--drop-rate",
        "0",
        "--dropout",
        "0",
        "--gru-units",
        "4",
    )
    one, two = (
        pd.read_csv(tmp_path / strategy / "history.csv") for strategy in ("none", "mirrored")
    )
    for name in ("train/loss", "val/loss", "train/n"):
        np.testing.assert_allclose(one[name], two[name], rtol=1e-5)
    assert json.loads((tmp_path / "mirrored" / "plan.json").read_text())["device"] == "2 x cpu"
