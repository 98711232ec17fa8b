"""What the rows of history.csv say about a training: its best epoch, and metrics.json."""

import json
from typing import Any

import numpy as np

from keras_bert.training.trainable import TrainingPlan

KIND = "classification"  # of texts, or of masked tokens


def best_epoch(rows: list[dict[str, str]], monitor: str, mode: str) -> int:
    """Return the epoch with the best metric; of equal epochs, the first."""
    choose = min if mode == "min" else max
    return int(choose(rows, key=lambda row: float(row[monitor]))["epoch"])


def fit_record(rows: list[dict[str, str]], job: TrainingPlan) -> dict[str, Any]:
    """Return the training part of metrics.json.

    It contains the best epoch, its validation metrics, the parameter counts and the seconds.
    """
    epoch = best_epoch(rows, job.monitor, job.mode)
    row = next(row for row in rows if int(row["epoch"]) == epoch)
    values = {
        key.removeprefix("val/"): value for key, value in row.items() if key.startswith("val/")
    }
    val = {key: json.loads(value) if value else None for key, value in values.items()}
    best = {
        "epoch": epoch,
        "monitor": job.monitor,
        "score": float(row[job.monitor]),
        "checkpoint": "checkpoints/best.keras",
    }
    count = {
        kind: sum(int(np.prod(variable.shape)) for variable in variables)
        for kind, variables in (
            ("total", job.network.weights),
            ("trainable", job.network.trainable_weights),
        )
    }
    seconds = [float(row["train/seconds"]) for row in rows]
    fit_seconds = round(sum(float(row["seconds"]) for row in rows), 3)
    return {
        "kind": KIND,
        "val": val,
        "best": best,
        "parameters": count,
        "seconds": {
            "fit": fit_seconds,
            "test": None,
            "epoch_mean": round(sum(seconds) / len(seconds), 3),
        },
    }
