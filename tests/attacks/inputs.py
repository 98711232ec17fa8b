"""Hostile and damaged content for the files of a run folder.

Each function changes a file, or writes it. The name says what is wrong with it.
"""

import io
import json
import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

Change = Callable[[Path], None]

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


class Code:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/thaw_was_attacked",)


def text(content: str) -> Change:
    """Write a text."""
    return lambda path: _write(path, content.encode())


def raw(content: bytes) -> Change:
    """Write bytes."""
    return lambda path: _write(path, content)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def folder(path: Path) -> None:
    """Put a folder in the place of the file."""
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    """Put a pipe in the place of the file."""
    path.unlink()
    os.mkfifo(path)


def cut(path: Path) -> None:
    """Cut the file in the middle."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def line(number: int, content: str) -> Change:
    """Replace one line; 0 is the first."""

    def change(path: Path) -> None:
        lines = path.read_text().splitlines()
        lines[number] = content
        path.write_text("\n".join(lines))

    return change


def value(key: str, content: Any) -> Change:
    """Set a dotted key of a JSON or YAML file, or of a checkpoint."""

    def change(path: Path) -> None:
        loaded = _load(path)
        node, (*parents, last) = loaded, key.split("|")
        for parent in parents:
            node = node[parent]
        node[last] = content
        _dump(path, loaded)

    return change


def without(key: str) -> Change:
    """Remove a dotted key of a JSON or YAML file, or of a checkpoint."""

    def change(path: Path) -> None:
        loaded = _load(path)
        node, (*parents, last) = loaded, key.split("|")
        for parent in parents:
            node = node[parent]
        del node[last]
        _dump(path, loaded)

    return change


def _load(path: Path) -> Any:
    if path.suffix == ".ckpt":
        return torch.load(path, weights_only=True)
    return (
        json.loads(path.read_text()) if path.suffix == ".json" else yaml.safe_load(path.read_text())
    )


def _dump(path: Path, content: Any) -> None:
    if path.suffix == ".ckpt":
        torch.save(content, path)
    else:
        dump = json.dumps if path.suffix == ".json" else yaml.safe_dump
        path.write_text(dump(content))


def saved(content: Any) -> Change:
    """Write a checkpoint with other content."""
    return lambda path: torch.save(content, path)


def zipped(entries: dict[str, bytes]) -> Change:
    """Write a compressed archive."""

    def change(path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in entries.items():
                archive.writestr(name, content)

    return change


def pickled(path: Path) -> None:
    """Write a checkpoint whose pickle runs code."""
    zipped({"archive/data.pkl": pickle.dumps(Code(), protocol=2), "archive/version": b"3"})(path)


def lying(path: Path) -> None:
    """Let the directory of the archive state other sizes than its entries have."""
    content = bytearray(path.read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 5)
    path.write_bytes(content)


def safetensors(header: bytes, length: int | None = None, data: bytes = b"") -> Change:
    """Write a safetensors file; its header states a length of its own."""
    return raw(struct.pack("<Q", len(header) if length is None else length) + header + data)


def table(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Change:
    """Change a Parquet file."""
    return lambda path: change(pd.read_parquet(path)).to_parquet(path, index=False)


def png(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def archive_bytes(content: Any) -> bytes:
    """Return a checkpoint as bytes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
