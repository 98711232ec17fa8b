"""Reads the files of offline W&B runs: protobuf records in the framing of LevelDB's logs.

`python -m tests.wandb_files RUN` lists the contents.
"""

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb

_BLOCK, _HEADER = 32 * 1024, 7
_FILE_HEADER = 7  # magic and version
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class StoredRun:
    """Contents of the file of a run."""

    folder: Path
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None

    def curve(self, key: str) -> list[tuple[float, float]]:
        """(epoch or step, value) for each time that the key was logged."""
        axis = "trainer/global_step" if key.startswith("step/") else "epoch"
        return [(row[axis], row[key]) for row in self.history if key in row]

    def table(self, key: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a table."""
        (value,) = [row[key] for row in self.history if key in row]
        content = json.loads((self.folder / "files" / value["path"]).read_text())
        return content["columns"], content["data"]

    def media(self, key: str) -> dict[str, Any]:
        (value,) = [row[key] for row in self.history if key in row]
        return dict(value)


def records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file; checksums are verified."""
    content = path.read_bytes()
    assert content[:4] == b":W&B"
    at, parts = _FILE_HEADER, b""
    while at < len(content):
        remaining = _BLOCK - at % _BLOCK
        if remaining < _HEADER:
            at += remaining
            continue
        checksum, length, kind = struct.unpack("<IHB", content[at : at + _HEADER])
        data = content[at + _HEADER : at + _HEADER + length]
        assert zlib.crc32(bytes([kind]) + data) & 0xFFFFFFFF == checksum
        at += _HEADER + length
        parts = data if kind in (_FULL, _FIRST) else parts + data
        if kind in (_FULL, _LAST):
            record = pb.Record()
            record.ParseFromString(parts)
            yield record


def stored_runs(folder: Path) -> list[StoredRun]:
    """The offline runs of a run folder, the oldest first."""
    return [_read(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def stored_run(folder: Path) -> StoredRun:
    (run,) = stored_runs(folder)
    return run


def _nested(target: dict[str, Any], item: Any) -> None:
    """Apply an update as W&B does: mappings are merged."""
    *parents, key = list(item.nested_key) or [item.key]
    for parent in parents:
        target = target.setdefault(parent, {})
    _merge(target, {key: json.loads(item.value_json)})


def _merge(target: dict[str, Any], update: dict[str, Any]) -> None:
    for key, value in update.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def _read(path: Path) -> StoredRun:
    stored = StoredRun(path.parent)
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            stored.run = record.run
            for item in record.run.config.update:
                _nested(stored.config, item)
        elif kind == "config":
            for item in record.config.update:
                _nested(stored.config, item)
        elif kind == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                _nested(row, item)
            stored.history.append(row)
        elif kind == "summary":
            for item in record.summary.update:
                _nested(stored.summary, item)
        elif kind == "metric":
            stored.metrics[record.metric.name or record.metric.glob_name] = (
                record.metric.step_metric
            )
        elif kind == "files":
            stored.files += [file.path for file in record.files.files]
        elif kind == "artifact":
            stored.artifacts.append(record.artifact)
        elif kind == "exit":
            stored.exit_code = record.exit.exit_code
    return stored


def listing(stored: StoredRun) -> str:
    """A readable summary of a run."""
    run = stored.run
    lines = [
        f"run {run.run_id} '{run.display_name}' of {run.project}, group {run.run_group or '-'}, exit code {stored.exit_code}"
    ]
    lines.append(f"config: {len(stored.config)} keys: {', '.join(sorted(stored.config))}")
    lines.append(f"commit: {stored.config['provenance']['git']['commit']}")
    keys = sorted({key for row in stored.history for key in row if not key.startswith("_")})
    for key in keys:
        values = [row[key] for row in stored.history if key in row]
        last = values[-1]
        if isinstance(last, dict):
            kind = last.get("_type")
            if kind == "images/separated":
                lines.append(
                    f"  {key}: {last['count']} images, e.g. '{last['captions'][0]}', masks: {bool(last.get('all_masks'))}"
                )
            else:
                lines.append(
                    f"  {key}: {kind}, {last.get('nrows', '')} rows x {last.get('ncols', '')} columns"
                )
        else:
            lines.append(f"  {key}: {len(values)} points, last {last}")
    metrics = {
        key: value
        for key, value in stored.summary.items()
        if key.startswith(("test/", "best/")) and not isinstance(value, dict)
    }
    lines.append(
        "summary: " + ", ".join(f"{key}={value}" for key, value in sorted(metrics.items()))
    )
    lines += [
        f"artifact {a.type}: {a.name} {list(a.aliases)}, {[e.path for e in a.manifest.contents]}"
        for a in stored.artifacts
    ]
    lines.append(f"files: {len(stored.files)}: {', '.join(sorted(stored.files)[:6])}, ...")
    return "\n".join(lines)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for one in stored_runs(Path(argument)):
            print(listing(one))
