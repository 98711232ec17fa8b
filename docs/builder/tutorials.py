"""Runs a tutorial, a script with prose in jupytext's percent format, and writes its page."""

import html
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbconvert.filters import strip_ansi
from nbformat import NotebookNode
from nbformat.v4 import new_output

_TIMEOUT_S = 600
_REPORT = re.compile(r'<iframe [^>]*\bsrcdoc="([^"]*)"')
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
        if "outputs" in cell:
            cell.outputs = list(_merged(cell.outputs, folder, files))
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


def _merged(
    outputs: list[NotebookNode], folder: str, files: dict[str, bytes]
) -> Iterator[NotebookNode]:
    """Yield the outputs of a cell: the page of a run as a file, printed texts as one block."""
    printed = ""
    for output in outputs:
        data = output.get("data", {})
        shown = data.get("text/html", "")
        if report := _REPORT.match(shown):
            name = f"{folder}/report_{len(files)}.html"
            files[name] = html.unescape(report[1]).encode()
            data["text/html"] = _FRAME.format(name=name)
        elif output.output_type == "stream" or shown.startswith("<pre"):  # <pre: printed by rich
            printed += strip_ansi(output.get("text") or data["text/plain"])
            continue
        if printed:
            yield new_output("stream", text=printed)
        printed = ""
        yield output
    if printed:
        yield new_output("stream", text=printed)
