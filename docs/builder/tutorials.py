"""Runs a tutorial, a script with prose in jupytext's percent format, and writes its page."""

import tempfile
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

_TIMEOUT_S = 600


def write_page(script: Path) -> Path:
    """Run a tutorial in an empty folder; write its text, code, output and pictures beside it.

    Returns:
        The page.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell of the script fails.
    """
    notebook = jupytext.read(script)
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        NotebookClient(
            notebook, timeout=_TIMEOUT_S, kernel_name="python3", resources=where
        ).execute()
    name = script.stem
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, {"unique_key": name, "output_files_dir": f"{name}_pictures"}
    )
    for picture, content in resources["outputs"].items():
        target = script.parent / picture
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)
    page = script.with_suffix(".md")
    page.write_text(text.replace(folder, "/home/me/work"), encoding="utf-8")
    return page
