"""Mutate sound run folders, tables, images and configs, and look for tracebacks.

`python tests/fuzz.py --tries 2000 --seed 0`. Every command must succeed, or end with one line for
the user; any other exception is a finding, and is printed with the command that repeats it. Tries
that take more than a minute are counted as slow.
`--first` and `--kind` repeat single tries. pytest does not collect this file.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image

from tests.attacks.sound import RUNS, TRAIN, Called, call, make_runs

_LIMIT = 60  # seconds of a try
# Values of other types, and values that are hard to show or to compute with.
VALUES = (
    None, True, -1, 0, 1, 3.5, 10**30, -(10**400), float("nan"), float("inf"), 1e308, "", "x", "0",
    "<script>alert(1)</script>", "\x1b[31m", "${oc.env:HOME}", "../../x", "a" * 5000, [], {}, [[]],
    [1, "x"], {"x": 1}, ["x"] * 50, {"_target_": "os.system"},
)  # fmt: skip
Mutation = Callable[[Path, random.Random], None]


def mutate_bytes(path: Path, rng: random.Random) -> None:
    """Flip bits; or cut, remove, repeat or insert bytes."""
    content = bytearray(path.read_bytes())
    at, length = rng.randrange(len(content) + 1), rng.choice((1, 4, 40, 400))
    kind = rng.choice(("flip", "cut", "remove", "repeat", "insert"))
    if kind == "flip":
        for _ in range(length if content else 0):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del content[at:]
    elif kind == "remove":
        del content[at : at + length]
    elif kind == "repeat":
        content[at:at] = content[at : at + length]
    else:
        content[at:at] = rng.randbytes(length)
    path.write_bytes(content)


def mutate_lines(path: Path, rng: random.Random) -> None:
    """Delete, repeat or exchange lines."""
    lines = path.read_bytes().splitlines(keepends=True) or [b""]
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.choice(("delete", "repeat", "exchange"))
    if kind == "delete":
        del lines[at]
    elif kind == "repeat":
        lines.insert(other, lines[at])
    else:
        lines[at], lines[other] = lines[other], lines[at]
    path.write_bytes(b"".join(lines))


def mutate_values(content: Any, rng: random.Random) -> Any:
    """Replace, remove or rename one value at any depth of nested lists and mappings."""
    places: list[tuple[Any, Any]] = []
    open_nodes = [content]
    while open_nodes:
        node = open_nodes.pop()
        keys = node.keys() if isinstance(node, dict) else range(len(node))
        for key in list(keys):
            places.append((node, key))
            if isinstance(node[key], dict | list) and node[key]:
                open_nodes.append(node[key])
    if not places or rng.random() < 0.02:
        return rng.choice(VALUES)
    node, key = rng.choice(places)
    kind = rng.choice(("replace", "replace", "remove", "rename"))
    if kind == "replace":
        node[key] = rng.choice(VALUES)
    elif kind == "rename" and isinstance(node, dict):
        node[f"{key}x"] = node.pop(key)
    else:
        del node[key]
    return content


def mutate_typed(path: Path, rng: random.Random) -> None:
    """Change a value of a JSON file, a YAML file, a checkpoint or a Parquet file."""
    if path.suffix == ".json":
        content = mutate_values(json.loads(path.read_text()), rng)
        path.write_text(json.dumps(content))
    elif path.suffix == ".yaml":
        content = mutate_values(yaml.safe_load(path.read_text()), rng)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    elif path.suffix == ".ckpt":
        content = torch.load(path, weights_only=True)
        for _ in range(rng.choice((1, 1, 3))):
            content = mutate_values(content, rng) if isinstance(content, dict) else content
        torch.save(content, path)
    elif path.suffix == ".parquet":
        mutate_table(pd.read_parquet(path), rng).to_parquet(path)
    else:
        mutate_lines(path, rng)


def mutate_table(table: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """Remove, rename or retype a column, or change rows."""
    name = rng.choice(list(table.columns))
    kind = rng.choice(("drop", "rename", "text", "null", "nested", "rows", "none", "huge"))
    if kind == "drop":
        return table.drop(columns=name)
    if kind == "rename":
        return table.rename(columns={name: f"{name}x"})
    if kind == "rows":
        return pd.concat([table, table.sample(3, replace=True, random_state=rng.randrange(99))])
    if kind == "none":
        return table.head(0)
    changed = table.copy()
    if kind == "text":
        changed[name] = [str(value) for value in table[name]]
    elif kind == "nested":
        changed[name] = [[1, 2]] * len(table)
    else:
        values = table[name].astype(object).tolist()
        values[rng.randrange(len(values))] = None if kind == "null" else 10**15
        changed[name] = pd.array(values) if kind == "null" else [str(v) for v in values]
    return changed


def mutate_entry(path: Path, rng: random.Random) -> None:
    """Remove, empty, rename or exchange a file, or put a folder in its place."""
    kind = rng.choice(("remove", "empty", "rename", "exchange", "folder", "pipe", "link"))
    others = [file for file in path.parent.iterdir() if file.is_file() and file != path]
    if kind == "exchange" and others:
        other = rng.choice(others)
        content = path.read_bytes()
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
        return
    path.rename(path.with_name(f"{path.name}.old")) if kind == "rename" else path.unlink()
    if kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to("nowhere")


MUTATIONS: tuple[Mutation, ...] = (mutate_bytes, mutate_lines, mutate_typed, mutate_entry)
_WEIGHTS = (2, 2, 5, 1)


class Fuzzer:
    """Tries of each kind on sound runs.

    Attributes:
        folder: The folder of the sound runs and of the tries.
        runs: The sound runs; see `make_runs`.
        counts: Kind and how the tries ended -> number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = make_runs(folder)
        self.counts: Counter[tuple[str, str]] = Counter()
        pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
        self.images = {}
        for kind in ("png", "jpg", "gif", "webp", "bmp", "tif"):
            self.images[kind] = folder / f"sound.{kind}"
            Image.fromarray(pixels).save(self.images[kind])
        rows = [
            {"id": i, "text": f'say "hi", {i}', "label": ("real", "fake")[i % 2]} for i in range(30)
        ]
        table = pd.DataFrame(rows)
        self.tables = {
            kind: folder / f"sound.{kind}" for kind in ("csv", "tsv", "jsonl", "parquet", "txt")
        }
        table.to_csv(self.tables["csv"], index=False)
        table.to_csv(self.tables["tsv"], index=False, sep="\t")
        table.to_json(self.tables["jsonl"], orient="records", lines=True)
        table.to_parquet(self.tables["parquet"])
        self.tables["txt"].write_text("\n".join(table["text"]))
        self.kinds = {
            "run folder": self.run_folder, "sweep": self.sweep, "table": self.table,
            "image": self.image, "config": self.config,
        }  # fmt: skip

    def attempt(self, seed: int, number: int, only: str | None) -> str:
        """Make one try, and return its finding; empty if there is none."""
        rng = random.Random(f"{seed}/{number}")
        kind = only or rng.choices(list(self.kinds), (5, 2, 2, 2, 2))[0]
        place = Path(tempfile.mkdtemp(dir=self.folder))
        signal.setitimer(signal.ITIMER_REAL, _LIMIT)
        try:
            what, called = self.kinds[kind](place, rng)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            shutil.rmtree(place, ignore_errors=True)
        lines = [line for line in called.err.splitlines() if line.startswith("error: ")]
        ended = "sound" if not called.code else "refused"
        finding = called.crash
        if not finding and called.code and not lines and "different: " not in called.out:
            finding = f"exit code {called.code} without a message: {called.err[-500:]}"
        if "TimeoutError: the try took" in finding:  # a value that asks for much work
            finding, ended = "", "slow"
        self.counts[kind, "finding" if finding else ended] += 1
        return f"{kind}, {what}: {finding}" if finding else ""

    def _mutated(self, path: Path, rng: random.Random) -> str:
        """Mutate one file of a folder, and return its name with the mutation."""
        files = sorted(
            file for file in path.rglob("*")
            if file.is_file() and file.suffix not in (".html", ".log")
        )  # fmt: skip
        file, mutation = rng.choice(files), rng.choices(MUTATIONS, _WEIGHTS)[0]
        mutation(file, rng)
        return f"{file.relative_to(path)} {mutation.__name__}"

    def run_folder(self, place: Path, rng: random.Random) -> tuple[str, Called]:
        """Mutate a run folder; evaluate, predict, report, compare or resume it."""
        name = rng.choice(list(RUNS))
        run = Path(shutil.copytree(self.runs[name], place / "run"))
        what = self._mutated(run, rng)
        sample = self.tables["csv"] if name == "text" else self.images["png"]
        command: tuple[object, ...] = rng.choice((
            ("evaluate", run), ("evaluate", run), ("predict", run, sample, "-o", place / "out.csv"),
            ("report", run), ("report", run), ("report", self.runs[name], run),
            ("train", *RUNS[name], *TRAIN, f"hydra.run.dir={run}", "ckpt_path=last",
             "trainer.max_epochs=2"),
        ))  # fmt: skip
        if command[0] == "predict" and name == "masks":
            command = (*command[:-1], place / "out")
        return f"{name} {what}, {command[0]}", call(*command, cwd=place)  # type: ignore[arg-type]

    def sweep(self, place: Path, rng: random.Random) -> tuple[str, Called]:
        """Mutate the folder of a sweep, and resume it."""
        folder = Path(shutil.copytree(self.runs["sweep"], place / "sweep"))
        what = self._mutated(folder, rng)
        return what, call("train", f"sweep.resume={folder}", cwd=place)

    def table(self, place: Path, rng: random.Random) -> tuple[str, Called]:
        """Mutate a table of texts; predict it, or evaluate on it."""
        source = rng.choice(list(self.tables.values()))
        path = Path(shutil.copy(source, place / source.name))
        mutation = rng.choices(MUTATIONS, _WEIGHTS)[0]
        mutation(path, rng)
        run = self.runs["text"]
        skip = rng.choice(((), ("--on-bad-rows", "skip")))
        if rng.random() < 0.5 and source.suffix != ".txt":
            return f"{source.name} evaluate", call(
                "evaluate", run, "--data", path, *skip, cwd=place
            )
        out = place / f"out{rng.choice(('.csv', '.tsv', '.jsonl', '.parquet'))}"
        return f"{source.name} {mutation.__name__}", call(
            "predict", run, path, "-o", out, *skip, cwd=place
        )

    def image(self, place: Path, rng: random.Random) -> tuple[str, Called]:
        """Mutate an image, and predict it."""
        source = rng.choice(list(self.images.values()))
        path = Path(shutil.copy(source, place / source.name))
        for _ in range(rng.choice((1, 3))):
            mutate_bytes(path, rng)
        run = rng.choice(("image", "masks"))
        return source.name, call(
            "predict", self.runs[run], path, "-o", place / "out.csv", cwd=place
        )

    def config(self, place: Path, rng: random.Random) -> tuple[str, Called]:
        """Mutate a config of the user, and print the plan of a run."""
        name = rng.choice(list(RUNS))
        settled = yaml.safe_load((self.runs[name] / "config.yaml").read_text())
        kept = {key: settled[key] for key in ("model", "data", "trainer", "seed", "cache")}
        path = place / "configs" / "experiment" / "mutated.yaml"
        path.parent.mkdir(parents=True)
        path.write_text("# @package _global_\n" + yaml.safe_dump(kept, sort_keys=False))
        mutation = rng.choices((mutate_bytes, mutate_lines), (1, 3))[0]
        if rng.random() < 0.7:
            content = mutate_values(kept, rng)
            path.write_text("# @package _global_\n" + yaml.safe_dump(content, sort_keys=False))
        else:
            mutation(path, rng)
        words = RUNS[name][:2] if name != "text" else ()
        return name, call(
            "train",
            *words,
            "experiment=mutated",
            "plan=true",
            f"hydra.run.dir={place / 'r'}",
            cwd=place,
        )


def _too_slow(signum: int, frame: FrameType | None) -> None:
    msg = f"the try took more than {_LIMIT} s"
    raise TimeoutError(msg)


def main() -> int:
    """Make the tries, and return 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first try")
    parser.add_argument("--kind", help="make tries of this kind only")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _too_slow)
    findings = 0
    with tempfile.TemporaryDirectory() as name:
        fuzzer = Fuzzer(Path(name))
        for number in range(arguments.first, arguments.first + arguments.tries):
            finding = fuzzer.attempt(arguments.seed, number, arguments.kind)
            if finding:
                findings += 1
                only = f" --kind '{arguments.kind}'" if arguments.kind else ""
                again = f"--seed {arguments.seed} --first {number} --tries 1{only}"
                print(f"\n{finding}\n  again: python tests/fuzz.py {again}", flush=True)
    kinds = sorted({kind for kind, _ in fuzzer.counts})
    for kind in kinds:
        ends = {end: fuzzer.counts[kind, end] for end in ("sound", "refused", "slow", "finding")}
        listed = ", ".join(f"{count} {end}" for end, count in ends.items())
        print(f"{kind}: {sum(ends.values())} tries, {listed}")
    print(f"{arguments.tries} tries with seed {arguments.seed}: {findings} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
