"""Files of other formats: what a file is by its first bytes or its name, and what to do with it."""

import json
from pathlib import Path

from datamodules.reading.errors import DataError

_START = 2**20  # bytes that are looked at, for the first object of JSON
_HEAD = 1024  # bytes that are looked at for HTML
_UNPACK = "unpack it"
_SAVE_AS_CSV = "save it as CSV in the program that wrote it"
_AS_PARQUET = "write it as .parquet"
_DOWNLOAD = "the download failed: download it again"
_AS_TABLE = "if it is a table, rename it to .csv, .tsv or .jsonl"
_JSON_LINES = "a file of JSON objects; rename it to .jsonl"
_JSON_ARRAY = "one JSON array; write each object on its own line: jq -c '.[]' FILE > NEW.jsonl"
_JSON_OBJECT = "JSON over several lines; write each object on one line: jq -c . FILE > NEW.jsonl"
_CONTENTS = (
    (b"version https://git-lfs", "a pointer of Git LFS", "run: git lfs pull"),
    (b"PAR1\x15", "a Parquet file", "rename it to .parquet"),
    (b"\x1f\x8b\x08", "packed with gzip", _UNPACK),
    (b"\xfd7zXZ\0", "packed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"PK\x03\x04", "a ZIP archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a file of Microsoft Office", _SAVE_AS_CSV),
    (b"ARROW1\0\0", "an Arrow file", _AS_PARQUET),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _AS_PARQUET),
    (b"SQLite format 3\0", "an SQLite database", _AS_PARQUET),
    (b"\x93NUMPY", "a NumPy array", _AS_PARQUET),
    (b"\x80\x04\x95", "a pickle of Python", _AS_PARQUET),
    (b"\x80\x05\x95", "a pickle of Python", _AS_PARQUET),
    (b"%PDF-", "a PDF", "name another file"),
    (b"\x89PNG\r\n\x1a\n", "an image", "name another file"),
    (b"\xff\xd8\xff", "an image", "name another file"),
)
# Files of these kinds are ZIP archives too.
_OFFICE = (
    (b"[Content_Types].xml", "a file of Microsoft Office"),
    (b"opendocument", "an OpenDocument file"),
)
_SUFFIXES = {
    **dict.fromkeys((".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar", ".tar", ".tgz"), _UNPACK),
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods", ".numbers"), _SAVE_AS_CSV),
    **dict.fromkeys((".feather", ".arrow", ".h5", ".npy", ".orc", ".avro"), _AS_PARQUET),
    **dict.fromkeys((".txt", ".tab", ".dat", ".data", ""), _AS_TABLE),
    ".ndjson": "rename it to .jsonl",
    ".json": "rename it to .jsonl if each line is an object; else: jq -c '.[]' FILE > NEW.jsonl",
}


def advice_for_suffix(path: Path) -> str:
    """Return what to do with a file that no reader knows, after `; `, or an empty string."""
    advice = _SUFFIXES.get(path.suffix.lower())
    return f"; {advice}" if advice else ""


def check_content(path: Path) -> None:
    """Raise `DataError` if the first bytes of a table are those of another format.

    Args:
        path: A .csv, .tsv, .jsonl, .parquet or .txt file. In .txt, markup and JSON are texts.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        what = "a folder" if path.is_dir() else "a pipe, socket or device"
        msg = f"{path} is {what}; name a file"
        raise DataError(msg)
    with path.open("rb") as file:
        start = file.read(_START)
    suffix = path.suffix.lower()
    is_parquet = suffix == ".parquet" and start.startswith(b"PAR1")
    if suffix == ".txt":
        found = _binary(start)
    else:
        found = "" if is_parquet else other_format(start) or _text(start, suffix)
    if found:
        msg = f"{path} is {found}"
        raise DataError(msg)


def other_format(start: bytes) -> str:
    """Return what a file is by its first bytes and what to do, or an empty string."""
    text = start[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return f"a page of HTML; {_DOWNLOAD}"
    return _binary(start)


def _binary(start: bytes) -> str:
    if start.startswith(b"BZh") and start[4:10] == b"1AY&SY":
        return f"packed with bzip2; {_UNPACK}"
    if start[257:262] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    for beginning, name, advice in _CONTENTS:
        if start.startswith(beginning):
            is_zip = beginning.startswith(b"PK")
            office = next((what for word, what in _OFFICE if is_zip and word in start), "")
            return f"{office}; {_SAVE_AS_CSV}" if office else f"{name}; {advice}"
    return ""


def _text(start: bytes, suffix: str) -> str:
    text = start.decode("utf-8-sig", "replace").lstrip().replace("\r\n", "\n")
    if text.startswith("<?xml"):
        return f"an XML file; {_SAVE_AS_CSV}"
    if suffix == ".parquet":
        is_text = "\ufffd" not in text and "\0" not in text and "\n" in text
        return f"a text file; {_AS_TABLE}" if is_text else ""
    found = _json(text)
    return "" if found == _JSON_LINES and suffix == ".jsonl" else found


def _json(text: str) -> str:
    """Return what a text is that begins with a JSON object or an array of them.

    Only the first object is read, because the text may be cut off.
    """
    is_array = text.startswith("[")
    first = text.removeprefix("[").lstrip()
    try:
        value, end = json.JSONDecoder().raw_decode(first)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(value, dict):
        return ""
    if is_array:
        # In JSON Lines, a first line with an array is a bad row.
        return "" if text.partition("]\n")[2].startswith("{") else _JSON_ARRAY
    return _JSON_OBJECT if "\n" in first[:end] else _JSON_LINES
