"""Compare a test on several processes with the test on one: counts, metrics and predictions.

`python -m benchmarks.exactness` prints the table for texts; `--task images` and `--task masks`
print it for images and masks. The samples are the embedded ones; the weights are random. The
processes run on the CPU (gloo) with one thread each.
"""

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
import torch
from omegaconf import DictConfig
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from benchmarks.measuring import setting
from engine.build import build
from engine.config.composing.composition import compose_config
from engine.processes.library_warnings import filter_known
from engine.processes.supervisor import torchrun_environment
from engine.results import write_test_results
from engine.sweeps.names import register_resolvers
from run_folders.run_folder import RunFolder

_CHOICES = {
    "text": [],
    "images": ["experiment=sample_images"],
    "masks": ["experiment=sample_scenes"],
}
# Samples -> batch size. None divides the samples, so the last batch is smaller.
_BATCH_SIZES = {2140: 48, 7: 2}
_DEFAULT_BATCH_SIZE = 8
_TIMEOUT = 600  # seconds


def _config(task: str, samples: int, processes: int) -> DictConfig:
    register_resolvers()
    cfg = compose_config([*_CHOICES[task], "trainer=ddp_cpu"])
    cfg.data.rows = {"train": 50, "val": 20, "test": samples}
    cfg.data.eval_batch_size = _BATCH_SIZES.get(samples, _DEFAULT_BATCH_SIZE)
    cfg.trainer.devices, cfg.trainer.strategy = processes, "ddp" if processes > 1 else "auto"
    return cfg


def _test(task: str, sizes: list[int], rank: int, processes: int, port: int, folder: Path) -> None:
    """Test a network on each number of samples, as one process; rank 0 writes the results."""
    if processes > 1:
        os.environ.update(torchrun_environment(rank, processes, port))
    filter_known()
    for samples in sizes:
        cfg = _config(task, samples, processes)
        lightning.seed_everything(1, workers=True, verbose=False)
        run_folder = RunFolder(folder / f"{processes}x{samples}", writes=rank == 0)
        objects = build(cfg, run_folder)
        objects.trainer.test(objects.task, datamodule=objects.datamodule, verbose=False)
        if run_folder.writes:
            run_folder.write_json("metrics.json", write_test_results(cfg, run_folder, objects))


def run_processes(task: str, sizes: list[int], processes: int, folder: Path) -> None:
    """Test on `processes` processes.

    Args:
        task: `text`, `images` or `masks`.
        sizes: Numbers of test samples; each is tested in turn.
        processes: Number of processes.
        folder: Where the run folders `<processes>x<samples>` are written.

    Raises:
        RuntimeError: If a process failed or did not end in time.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    fork = multiprocessing.get_context("fork")  # the children need not import anything again
    children = [
        fork.Process(target=_test, args=(task, sizes, rank, processes, store.port, folder))
        for rank in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(_TIMEOUT)
    if any(child.exitcode != 0 for child in children):
        for child in children:
            child.kill()
        codes = [child.exitcode for child in children]
        msg = f"{processes} processes ended with exit codes {codes}; see the output above"
        raise RuntimeError(msg)


def _numbers(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - any JSON
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _numbers(value, f"{path}/{key}")
    else:
        yield path, node


def compare(folder: Path, processes: int, samples: int) -> dict[str, Any]:
    """Compare the results of several processes with those of one.

    Args:
        folder: The folder of `run_processes`.
        processes: Number of processes.
        samples: Number of test samples.

    Returns:
        `processes` and `samples`; `n`, the samples counted; `metrics`, how many numbers
        metrics.json has; `different`, the keys whose numbers differ; `largest`, the largest
        difference; `predictions`, true if the tables are identical, each sample once, in order.
    """
    one, several = (RunFolder(folder / f"{count}x{samples}") for count in (1, processes))
    ours, theirs = (
        dict(_numbers(json.loads((place.path / "metrics.json").read_text(encoding="utf-8"))))
        for place in (several, one)
    )
    different = [
        key for key in {**ours, **theirs} if ours.get(key, math.nan) != theirs.get(key, math.nan)
    ]
    gaps = [
        abs(float(ours.get(key, math.nan)) - float(theirs.get(key, math.nan))) for key in different
    ]
    tables = [pd.read_parquet(place.predictions) for place in (several, one)]
    same = tables[0].equals(tables[1]) and tables[0]["index"].tolist() == list(range(samples))
    return {
        "processes": processes,
        "samples": samples,
        "n": ours["/n"],
        "metrics": len(theirs),
        "different": different,
        "largest": max(gaps, default=0.0),
        "predictions": same,
    }


def main() -> int:
    """Print the table.

    Returns:
        0 if every row is exact, else 1.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=list(_CHOICES), default="text")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 3, 4, 8])
    parser.add_argument("--samples", type=int, nargs="+", default=list(_BATCH_SIZES))
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each row")
    arguments = parser.parse_args()
    # As in a run on several processes: the rounding of matrix products may depend on it.
    torch.set_num_threads(1)
    exact = True
    with tempfile.TemporaryDirectory() as name:
        if not arguments.json:
            print(f"{setting('torch', 'lightning', 'torchmetrics')}; {arguments.task}\n")
            print(
                "| processes | samples | in a batch | counted | metrics the same "
                "| largest difference | predictions the same |"
            )
            print("|---|---|---|---|---|---|---|", flush=True)
        for processes in sorted({1, *arguments.processes}):
            run_processes(arguments.task, arguments.samples, processes, Path(name))
            for samples in arguments.samples:
                row = compare(Path(name), processes, samples)
                exact &= not row["different"] and row["predictions"] and row["n"] == samples
                same = f"{row['metrics'] - len(row['different'])} of {row['metrics']}"
                batch = _BATCH_SIZES.get(samples, _DEFAULT_BATCH_SIZE)
                predictions = "yes" if row["predictions"] else "no"
                results = f"{row['n']} | {same} | {row['largest']:g} | {predictions} |"
                print(
                    json.dumps(row)
                    if arguments.json
                    else f"| {processes} | {samples} | {batch} | {results}",
                    flush=True,
                )
    return 0 if exact else 1


if __name__ == "__main__":
    sys.exit(main())
