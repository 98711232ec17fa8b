"""The encoded content of an image: found in a table or as a file, and identified by a digest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

_END = 2**16  # bytes that are hashed at each end of a large file
_LONGEST_PATH = 200  # characters of a path in a message


def digest_of(source: bytes | Path, *, whole: bool = False) -> str:
    """Return the SHA-256 of an image's content.

    Unless `whole`, the digest of a file over 128 KiB covers only its size, start and end.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    length = source.stat().st_size
    with source.open("rb") as file:
        if whole or length <= 2 * _END:
            return hashlib.file_digest(file, "sha256").hexdigest()
        ends = file.read(_END)
        file.seek(length - _END)
        return hashlib.sha256(ends + file.read(_END) + str(length).encode()).hexdigest()


def read_with_digest(source: bytes | Path) -> tuple[bytes | Path, bytes]:
    """Return the SHA-256 as in `digest_of`, and the content of a small file in place of the file.

    Raises:
        OSError: If the file cannot be read.
    """
    if isinstance(source, bytes):
        return source, hashlib.sha256(source).digest()
    with source.open("rb") as file:
        content = file.read(2 * _END + 1)
    if len(content) > 2 * _END:
        return source, bytes.fromhex(digest_of(source))
    return content, hashlib.sha256(content).digest()


def image_source(
    values: Mapping[str, Any], column: str, folder: Path | None
) -> tuple[bytes | Path, str]:
    """Return the image of a row, and an empty string or the fault.

    Args:
        values: Column -> value.
        column: Column of the images.
        folder: Folder that paths of images are relative to; None if there are no paths.
    """
    value = values.get(column)
    content = content_of(value)
    if content is not None:
        return content, ""
    if value is None or (isinstance(value, str) and not value.strip()):
        return b"", f"column '{column}' is empty"
    if folder is None or not isinstance(value, str):
        return b"", f"column '{column}' holds no image bytes"
    path = stored_path(folder / value.strip())
    fault = file_fault(path)
    return path, f"{fault} {str(path)[:_LONGEST_PATH]}" if fault else ""


def stored_path(path: Path) -> Path:
    """Return a path in the spelling of its accented letters in which the file is stored."""
    spellings = (path, *(Path(normalize(form, str(path))) for form in ("NFC", "NFD")))
    return next((other for other in spellings if not file_fault(other)), path)


def file_fault(path: Path) -> str:
    """Return why a path is no file that can be opened, or an empty string."""
    try:
        found, exists = path.is_file(), path.exists()
    except (OSError, ValueError):  # too long, or with a null character: no path
        found = exists = False
    if exists and not found:
        return "there is a folder, pipe, socket or device in place of the file"
    return "" if found else "there is no file"


def content_of(value: Any) -> bytes | None:  # noqa: ANN401 - whatever a table holds
    """Return the bytes of an image from a table, given as bytes or as a mapping with `bytes`."""
    content = value.get("bytes") if isinstance(value, dict) else value
    return content if isinstance(content, bytes) else None
