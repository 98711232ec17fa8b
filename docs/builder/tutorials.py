"""Runs a tutorial, a script with prose in jupytext's percent format, and writes its page."""

import html
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi

_TIMEOUT_S = 600
_REPORT = re.compile(r'<iframe srcdoc="([^"]*)"')
_FRAME = '<iframe src="{name}" title="report.html" class="report"></iframe>'
# Where the tutorial runs, in the reader's eyes.
_WORK = "/home/me/work"


def write_page(script: Path) -> Path:
    """Run a tutorial in an empty folder; write its text, code, output and pictures beside it.

    Returns:
        The page.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell of the script fails.
    """
    notebook = jupytext.read(script)
    # tqdm warns that no widgets are installed.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    with tempfile.TemporaryDirectory() as work:
        where = {"metadata": {"path": work}}
        NotebookClient(
            notebook,
            timeout=_TIMEOUT_S,
            kernel_name="python3",
            resources=where,
            coalesce_streams=True,
        ).execute()
    folder = f"{script.stem}_pictures"
    files: dict[str, bytes] = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            _simplify(output.get("data", {}), folder, files)
            output["text"] = strip_ansi(output.get("text", ""))
    text, resources = MarkdownExporter().from_notebook_node(
        notebook, {"unique_key": script.stem, "output_files_dir": folder}
    )
    for name, content in (resources["outputs"] | files).items():
        target = script.parent / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content.replace(work.encode(), _WORK.encode()))
    text = text.replace("```bash\n%%bash\n", "```sh\n").replace(work, _WORK)
    page = script.with_suffix(".md")
    page.write_text(text, encoding="utf-8")
    return page


def _simplify(data: dict[str, Any], folder: str, files: dict[str, bytes]) -> None:
    """Prepare an output for Markdown: plain text for text, and a file for the page of a run."""
    shown = data.get("text/html", "")
    if report := _REPORT.match(shown):
        name = f"{folder}/report_{len(files)}.html"
        files[name] = html.unescape(report[1]).encode()
        data["text/html"] = _FRAME.format(name=name)
    elif shown.startswith("<pre"):
        del data["text/html"]
