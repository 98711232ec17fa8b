"""Train every depth of a backbone, and compare what `depth` advises with the best of them.

    python -m benchmarks.depth_advice texts|images --data-dir DIR --backbone FOLDER [--seeds 3]

Texts: the COVID-19 tweets with MiniLM. Images: CIFAR-10 with EfficientNet-Lite0. For each seed, a
ladder trains every rung (`depth.every_rung=true`), and all rungs are tested. A ladder that stops at
the first rung that is not better would have trained the first of them only. A probe of its own
advises a layer, and a run trains from it. If a rung trains from the same layer, it is that run; the
pass that computed the features of all rungs then counts as its own, which is more than it needs.
Neither probe nor ladder finds features of the other in the cache.

The regret of an advice is the test accuracy of the best rung minus that of the advised layer. The
best rung is the one with the highest mean on test, so the regret is slightly too large. Its
interval is a percentile bootstrap over test samples, with the seeds as they are. Seconds are those
of features, probes and training. The share is that of the ladder that trains every rung.
"""

import argparse
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.measuring import setting
from run_folders.run_folder import RunFolder

_RESAMPLES = 2000


@dataclass(frozen=True)
class Study:
    """A dataset and a backbone, small enough for a CPU.

    Attributes:
        overrides: Overrides of every run.
        sizes: Number of samples of train, val and test; val is drawn from train if it is 0.
        epochs: Number of epochs.
    """

    overrides: tuple[str, ...]
    sizes: tuple[int, int, int]
    epochs: int


STUDIES = {
    "texts": Study(("experiment=minilm_finetune",), (1200, 1000, 1070), 3),
    "images": Study(
        (
            "data=cifar10",
            "schedule=cosine",
            "data.val_fraction=0.3333",
            "model.lr=1e-2",
            "model.backbone_lr=5e-4",
        ),
        (1200, 0, 800),
        3,
    ),
}


@dataclass(frozen=True)
class Trained:
    """A tested run.

    Attributes:
        start_layer: First layer that trains; None for the head alone.
        seconds: Duration of its training and of the features that it computed.
        correct: [N] whether a test sample is predicted correctly.
    """

    start_layer: str | None
    seconds: float
    correct: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Seed:
    """The runs of one seed.

    Attributes:
        rungs: Name -> rung, from the head on.
        features: Seconds of the pass that computed the features of all rungs.
        climbed: Names of the rungs that a ladder trains until it stops.
        chosen: The rung that it chooses.
        probed: The run that trains from the layer that the probe advises.
        probe: Seconds of the probe.
        samples: Number of samples of each split.
    """

    rungs: dict[str, Trained]
    features: float
    climbed: list[str]
    chosen: str
    probed: Trained
    probe: float
    samples: dict[str, int]

    @property
    def whole(self) -> float:
        """Seconds of a ladder that trains every rung."""
        return self.features + sum(rung.seconds for rung in self.rungs.values())

    @property
    def ladder(self) -> float:
        """Seconds of a ladder that stops."""
        return self.features + sum(self.rungs[name].seconds for name in self.climbed)


def main() -> None:
    """Run a study and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs=3, help="samples of train, val and test")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--keep", type=Path, help="folder of the runs; finished ones are kept")
    given = parser.parse_args()
    study = STUDIES[given.study]
    sizes, epochs = tuple(given.sizes or study.sizes), given.epochs or study.epochs
    print(setting("torch", "timm", "transformers", "lightning"), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.keep or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        subset(given.study, given.data_dir.resolve(), work, sizes)
        common = (
            *study.overrides,
            f"model.backbone={given.backbone.resolve()}",
            f"trainer.max_epochs={epochs}",
            f"paths.data_dir={work}",
        )
        seeds = [
            run_seed((*common, f"seed={seed}"), work / str(seed))
            for seed in range(1, given.seeds + 1)
        ]
    counts = ", ".join(f"{split} {count:,}" for split, count in seeds[0].samples.items())
    print(f"\n{given.study}: {counts}; {epochs} epochs; {given.seeds} seeds")
    print("\n".join(tables(seeds)))


def subset(study: str, data_dir: Path, folder: Path, sizes: Sequence[int]) -> None:
    """Write the first samples of each part."""
    if study == "images":
        (folder / "cifar10").mkdir(exist_ok=True)
        for part, count in (("train", sizes[0]), ("test", sizes[2])):
            table = pq.read_table(data_dir / "cifar10" / f"{part}.parquet").slice(0, count)
            pq.write_table(table, folder / "cifar10" / f"{part}.parquet")
        return
    (folder / "covid_fake_news").mkdir(exist_ok=True)
    for part, count in zip(("train", "val", "test"), sizes, strict=True):
        rows = pd.read_csv(data_dir / "covid_fake_news" / f"{part}.csv").head(count)
        rows.to_csv(folder / "covid_fake_news" / f"{part}.csv", index=False)


def run_seed(common: Sequence[str], work: Path) -> Seed:
    """Train every rung and what the probe advises, and test all of them."""
    probe = _finished((*common, "depth=probe"), work / "probe").read_json("depth.json")
    ladder = _finished((*common, "depth=ladder", "depth.every_rung=true"), work / "ladder")
    record = ladder.read_json("depth.json")
    rungs = {
        row["name"]: _tested(RunFolder(ladder.path / row["folder"])) for row in record["rungs"]
    }
    better = list(takewhile(lambda row: row["better"], record["rungs"]))
    chosen = better[-1]["name"]
    climbed = [row["name"] for row in record["rungs"][: len(better) + 1]]
    advised = probe["advice"]["start_layer"]
    features = record["seconds"]["features"]
    same = [
        replace(rung, seconds=rung.seconds + features)
        for rung in rungs.values()
        if rung.start_layer == advised
    ]
    if not same:
        start = f"callbacks.unfreezing.start_layer={advised}"
        same.append(_tested(_finished((*common, "callbacks=unfreezing", start), work / "probed")))
    samples = {**record["samples"], "test": len(same[0].correct)}
    spent = sum(probe["seconds"].values())
    return Seed(rungs, features, climbed, chosen, same[0], spent, samples)


def _finished(overrides: Sequence[str], path: Path) -> RunFolder:
    """Return the folder of a run, which runs if it is not finished."""
    from engine.launch import train

    folder = RunFolder(path)
    if folder.state != "finished":
        shutil.rmtree(path, ignore_errors=True)
        train([*overrides, f"cache.dir={path}_features", f"hydra.run.dir={path}"])
        shutil.rmtree(f"{path}_features", ignore_errors=True)
    return folder


def _tested(folder: RunFolder) -> Trained:
    """Test a run unless it was tested, and read it."""
    from engine.depth.testing import test_once

    test_once(folder)
    spent = folder.read_json("metrics.json")["seconds"]
    stages = folder.read_json("plan.json")["stages"]
    table = pd.read_parquet(folder.predictions).sort_values("index")
    return Trained(
        stages[-1]["start_layer"] if stages else None,
        spent["fit"] + (spent["features"] or 0.0),
        np.asarray(table["label"] == table["prediction"]),
    )


def tables(seeds: Sequence[Seed]) -> list[str]:
    """Return the lines of both tables."""

    def accuracies(name: str) -> list[float]:
        return [float(seed.rungs[name].correct.mean()) for seed in seeds]

    names = list(seeds[0].rungs)
    best = max(names, key=lambda name: float(np.mean(accuracies(name))))
    lines = ["", "| rung | trains from | test accuracy | each seed | seconds |"]
    lines.append("|---|---|---|---|---|")
    for name in names:
        seconds = np.mean([seed.rungs[name].seconds for seed in seeds])
        each = ", ".join(f"{acc:.4f}" for acc in accuracies(name))
        lines.append(
            f"| {name}{' (best)' * (name == best)} | {seeds[0].rungs[name].start_layer or '-'} "
            f"| {np.mean(accuracies(name)):.4f} | {each} | {seconds:.0f} |"
        )
    features = np.mean([seed.features for seed in seeds])
    lines.append(f"| features of all rungs | | | | {features:.0f} |")
    lines += ["", "| advice | layers | test accuracy | regret | 95 % interval | seconds | share |"]
    lines.append("|---|---|---|---|---|---|---|")
    advices: dict[str, tuple[Callable[[Seed], Trained], Callable[[Seed], float]]] = {
        "probe": (lambda seed: seed.probed, lambda seed: seed.probe + seed.probed.seconds),
        "ladder": (lambda seed: seed.rungs[seed.chosen], lambda seed: seed.ladder),
    }
    whole = sum(seed.whole for seed in seeds)
    for advice, (advised, seconds_of) in advices.items():
        runs = [advised(seed) for seed in seeds]
        layers = Counter(run.start_layer or "head" for run in runs)
        regret, (low, high) = regret_of(
            [seed.rungs[best].correct for seed in seeds], [run.correct for run in runs]
        )
        spent = sum(map(seconds_of, seeds))
        lines.append(
            f"| {advice} | {', '.join(f'{layer} ({n})' for layer, n in layers.items())} "
            f"| {np.mean([run.correct for run in runs]):.4f} | {regret:+.4f} "
            f"| {low:+.4f} to {high:+.4f} | {spent / len(seeds):.0f} | {spent / whole:.0%} |"
        )
    lines.append(f"| every rung | {best} | | | | {whole / len(seeds):.0f} | 100% |")
    return lines


def regret_of(
    best: Sequence[npt.NDArray[np.bool_]], advised: Sequence[npt.NDArray[np.bool_]]
) -> tuple[float, tuple[float, float]]:
    """Return by how much the best rung is better than the advised one, and the 95 % interval.

    Args:
        best: For each seed, [N] whether the best rung predicts a test sample correctly.
        advised: The same of the advised layers.
    """
    lost = np.mean(np.asarray(best, float) - np.asarray(advised, float), axis=0)
    random = np.random.default_rng(0)
    means = [lost[random.integers(0, len(lost), len(lost))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(lost.mean()), (float(low), float(high))


if __name__ == "__main__":
    main()
