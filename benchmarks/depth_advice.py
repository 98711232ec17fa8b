"""Train every depth of a backbone, and compare what `depth` advises with the best of them.

    python -m benchmarks.depth_advice texts|images --data-dir DIR --backbone FOLDER [--seeds 3]

Texts: the COVID-19 tweets with MiniLM. Images: CIFAR-10 with EfficientNet-Lite0. Every rung of a
ladder is trained and tested with each seed, and so is the layer that the probe advises. The advice
of the ladder is read from the same runs: the rungs up to the first that is not better are those
that `depth=ladder` trains. The regret of an advice is the test accuracy of the best rung minus that
of the advised one. The best rung is the one with the highest mean on test, so the regret is
slightly too large. Its interval is a percentile bootstrap over test samples, with the seeds as they
are.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq

from benchmarks.measuring import setting
from reports.depth.rungs import compare_rungs, read_rung
from run_folders.run_folder import RunFolder

_SIGNIFICANCE = 0.05
_RESAMPLES = 2000
_PROBE = "probe"


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
    "texts": Study(("experiment=minilm_finetune",), (2000, 1000, 1070), 4),
    "images": Study(
        (
            "data=cifar10",
            "schedule=cosine",
            "data.val_fraction=0.25",
            "model.lr=1e-3",
            "model.backbone_lr=5e-4",
        ),
        (2000, 0, 1000),
        4,
    ),
}


@dataclass
class Depth:
    """The runs of one depth.

    Attributes:
        start_layer: First layer that trains; None for the head alone.
        runs: One finished run for each seed.
        seconds: Duration of training and features of each.
        correct: [seeds, N] whether a test sample is predicted correctly.
    """

    start_layer: str | None
    runs: list[RunFolder] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    correct: list[npt.NDArray[np.bool_]] = field(default_factory=list)

    @property
    def acc(self) -> float:
        """Mean accuracy on test over the seeds."""
        return float(np.mean(self.correct))


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
    parser.add_argument("--keep", type=Path, help="folder of the runs; they go on if it exists")
    given = parser.parse_args()
    study = STUDIES[given.study]
    sizes, epochs = tuple(given.sizes or study.sizes), given.epochs or study.epochs
    own = (*study.overrides, f"model.backbone={given.backbone.resolve()}")
    print(setting("torch", "timm", "transformers", "lightning"), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        work = (given.keep or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        os.environ["THAW_CACHE"] = str(work / "features")
        subset(given.study, given.data_dir.resolve(), work, sizes)
        common = (*own, f"trainer.max_epochs={epochs}", f"paths.data_dir={work}")
        probe = _probed(common, work)
        depths = _trained(common, work, given.seeds, probe["advice"]["start_layer"])
        print(f"\n{given.study}: n = {sizes} of train, val and test; {epochs} epochs")
        for line in tables(depths, probe, work):
            print(line, flush=True)


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


def _probed(common: Sequence[str], work: Path) -> dict[str, Any]:
    """Run `depth=probe`, unless it was run, and return its record."""
    folder = RunFolder(work / "probe")
    if folder.state != "finished":
        _train((*common, "depth=probe"), folder.path)
    return folder.read_json("depth.json")


def _trained(
    common: Sequence[str], work: Path, seeds: int, advised: str | None
) -> dict[str, Depth]:
    """Train and test every rung, and the advised layer, with each seed."""
    from engine.depth.rungs import HEAD, rung_names
    from engine.predict import open_run
    from lightning_modules.networks.freezing.blocks import blocks_of

    head = RunFolder(work / "head" / "1")
    if head.state != "finished":
        _train((*common, *overrides_of(None), "seed=1"), head.path)
    encoder: Any = open_run(head.path, "cpu").task.features
    blocks = blocks_of(encoder.model, encoder.record())
    rungs: dict[str, str | None] = {
        name: blocks[-int(name)].layer if name.isdecimal() else name
        for name in rung_names(len(blocks))
    }
    rungs[HEAD] = None
    if advised not in rungs.values():
        rungs[_PROBE] = advised
    depths = {name: Depth(layer) for name, layer in rungs.items()}
    for seed in range(1, seeds + 1):
        for name, depth in depths.items():
            folder = RunFolder(work / name / str(seed))
            if folder.state != "finished":
                _train((*common, *overrides_of(depth.start_layer), f"seed={seed}"), folder.path)
            spent = folder.read_json("metrics.json")["seconds"]
            table = pd.read_parquet(folder.predictions).sort_values("index")
            depth.runs.append(folder)
            depth.seconds.append(spent["fit"] + (spent["features"] or 0.0))
            depth.correct.append(np.asarray(table["label"] == table["prediction"]))
    return depths


def overrides_of(start_layer: str | None) -> tuple[str, ...]:
    """Return the overrides that train from a layer on."""
    if start_layer is None:
        return ("model.freeze_backbone=true",)
    return ("callbacks=unfreezing", f"callbacks.unfreezing.start_layer={start_layer}")


def _train(overrides: Sequence[str], folder: Path) -> None:
    from engine.launch import train

    train([*overrides, f"hydra.run.dir={folder}"])


def tables(depths: Mapping[str, Depth], probe: Mapping[str, Any], work: Path) -> list[str]:
    """Return the lines of both tables, and write them as JSON to the folder of the runs."""
    rungs = {name: depth for name, depth in depths.items() if name != _PROBE}
    best = max(rungs, key=lambda name: rungs[name].acc)
    lines = ["\n| train from | test accuracy | each seed | seconds |", "|---|---|---|---|"]
    for name, depth in depths.items():
        each = ", ".join(f"{own.mean():.4f}" for own in depth.correct)
        lines.append(
            f"| {name}: {depth.start_layer or 'the head'} | {depth.acc:.4f} | {each} "
            f"| {np.mean(depth.seconds):.0f} |"
        )
    whole = sum(sum(depth.seconds) for depth in rungs.values())
    lines += ["", "| advice | regret | 95 % interval | seconds | share of all rungs |"]
    lines.append("|---|---|---|---|---|")
    start = probe["advice"]["start_layer"]
    advised = next(name for name, depth in depths.items() if depth.start_layer == start)
    seeds = len(depths[best].runs)
    spent = sum(probe["seconds"].values()) * seeds + sum(depths[advised].seconds)
    rows = [_advice("probe", depths[best], [depths[advised]] * seeds, spent, whole)]
    chosen, seconds = _climbed(rungs, work)
    rows.append(_advice("ladder", depths[best], [rungs[n] for n in chosen], seconds, whole))
    lines += [row["line"] for row in rows]
    lines.append(f"\nbest: {best}; probe: {advised}; ladder: {', '.join(chosen)}")
    record = {"best": best, "probe": advised, "ladder": chosen, "lines": lines}
    (work / "depth_advice.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    return lines


def _climbed(rungs: Mapping[str, Depth], work: Path) -> tuple[list[str], float]:
    """Return the rung that the ladder of each seed chooses, and the seconds of all ladders."""
    chosen, seconds = [], 0.0
    for seed in range(len(next(iter(rungs.values())).runs)):
        read = [read_rung(n, d.runs[seed].path, work) for n, d in rungs.items()]
        for count in range(1, len(read) + 1):
            rows, best = compare_rungs(read[:count], _SIGNIFICANCE)
            if not rows[-1].better:
                break
        chosen.append(rows[best].name)
        seconds += sum(row.seconds for row in rows)
    return chosen, seconds


def _advice(
    name: str, best: Depth, advised: Sequence[Depth], seconds: float, whole: float
) -> dict[str, Any]:
    """Return the regret of an advice, with its interval, as a line of the table.

    Args:
        name: The advice.
        best: The best depth.
        advised: The advised depth of each seed.
        seconds: Duration of the advice and of the runs that it needs, over all seeds.
        whole: The same of all rungs.
    """
    lost = np.mean(
        [
            ours.astype(float) - theirs.correct[seed]
            for seed, (ours, theirs) in enumerate(zip(best.correct, advised, strict=True))
        ],
        axis=0,
    )
    random = np.random.default_rng(0)
    means = [lost[random.integers(0, len(lost), len(lost))].mean() for _ in range(_RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    line = (
        f"| {name} | {lost.mean():+.4f} | {low:+.4f} to {high:+.4f} | {seconds:.0f} "
        f"| {seconds / whole:.0%} |"
    )
    return {"line": line, "regret": float(lost.mean()), "interval": [float(low), float(high)]}


if __name__ == "__main__":
    main()
