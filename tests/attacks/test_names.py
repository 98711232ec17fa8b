"""Names, texts and labels of a stranger are shown as they are: nothing in them is interpreted."""

import csv
import logging
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra.errors import ConfigCompositionException

from datamodules.reading.errors import BadRow, DataError, raise_bad_rows
from engine.processes.outcome import report_failure
from engine.processes.terminal import LineFormatter, console
from reports import plots
from reports.comparison import write_comparison
from reports.page import write_report
from reports.sweep import write_sweep_page
from run_folders.errors import one_line, printable
from run_folders.run_folder import RunFolder
from tests.attacks.sound import call, make_runs

HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><b>x", "'-alert(1)-'",
    "javascript:alert(1)", "{{ 7 * 7 }}", "-->", "\u202egnp.exe", "\x1b[31mred\x1b]0;x\x07",
    "[red]x[/red]", "[link=file:///etc/passwd]x[/link]", "../../etc/passwd", "a\nerror: forged",
    "$\\frac{", "=cmd|' /C calc'!A0", ":smile:", "]]>", "&lt;b&gt;",
)  # fmt: skip
TOGETHER = [" ".join(HOSTILE[start::3]) for start in range(3)]
_ALLOWED_LINKS = ("data:", "0/report.html", "1/report.html")


class Page(HTMLParser):
    """What a browser would run or load.

    Attributes:
        scripts: The content of the scripts.
        faults: Tags and attributes that no page of Thaw has.
        text: All texts.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[str] = []
        self.faults: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        if tag in ("iframe", "object", "embed", "base", "form"):
            self.faults.append(tag)
        for name, value in attrs:
            target = name in ("src", "href", "xlink:href", "action")
            if name.startswith("on") or (
                target and not str(value).startswith((*_ALLOWED_LINKS, "#"))
            ):
                self.faults.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_runs(tmp_path_factory.mktemp("sound"))


def with_names(run: Path, name: str) -> None:
    """Put a hostile name at each place of a run folder that a page shows."""
    folder = RunFolder(run)
    metrics, table = folder.read_json("metrics.json"), pd.read_parquet(folder.predictions)
    test = metrics["test"]
    old, test["classes"] = test["classes"], [name, f"{name}2", *test["classes"][2:]]
    test["per_class"] = dict(zip(test["classes"], test["per_class"].values(), strict=True))
    renamed = dict(zip(old, test["classes"], strict=True))
    table = table.rename(
        columns={f"probability_{k}": f"probability_{v}" for k, v in renamed.items()}
    )
    for column in ("label", "prediction"):
        if column in table:
            table[column] = table[column].map(renamed)
    reference = table.columns[-1]
    table[reference] = name
    if "prediction" in table:  # every sample is a mistake
        table["prediction"] = test["classes"][0]
        table["label"] = test["classes"][1]
    table.rename(columns={reference: f"{reference}{name}"}).to_parquet(folder.predictions)
    metrics["best"]["monitor"] = name
    metrics["loss"] = name
    folder.write_json("metrics.json", metrics)
    plan, origin = folder.read_json("plan.json"), folder.read_json("provenance.json")
    plan["rows"][0] |= {"module": name, "mode": name}
    plan |= {"device": name, "precision": name}
    origin["git"]["commit"] = origin["hardware"]["cpu"] = name
    origin["versions"][name] = name
    overlap = {"splits": [name, name], "count": 2, "what": name, "examples": [name]}
    origin["data"]["overlaps"] = [overlap]
    folder.write_json("plan.json", plan)
    folder.write_json("provenance.json", origin)
    folder.write_status("failed", name, name)
    (run / "config.yaml").write_text(yaml.safe_dump({"name": name}))


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("kind", ["text", "image", "masks"])
def test_nothing_escapes_a_page(
    kind: str, name: str, sound: dict[str, Path], tmp_path: Path
) -> None:
    sound_page = Page((sound[kind] / "report.html").read_text(encoding="utf-8"))
    run = Path(shutil.copytree(sound[kind], tmp_path / "run"))
    with_names(run, name)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert not page.faults
    assert len(page.scripts) <= 1
    assert set(page.scripts) <= {*sound_page.scripts, *page.scripts[:1]}
    assert all("alert" not in script for script in page.scripts)
    shown = " ".join(name.split()).replace("\x07", "")
    assert shown[:8] in " ".join(page.text.split())
    write_comparison([sound[kind], run], tmp_path / "page.html")
    assert not Page((tmp_path / "page.html").read_text(encoding="utf-8")).faults


@pytest.mark.parametrize("name", TOGETHER)
def test_nothing_escapes_the_page_of_a_sweep(
    name: str, sound: dict[str, Path], tmp_path: Path
) -> None:
    sweep = Path(shutil.copytree(sound["sweep"], tmp_path / "sweep"))
    with_names(sweep / "0", name)
    RunFolder(sweep / "0").write_json(
        "overrides.json", {"words": [f"seed={name}", f"{name}={name}"]}
    )
    page = Page(write_sweep_page(sweep).read_text(encoding="utf-8"))
    assert not page.faults
    assert not page.scripts


@pytest.mark.drawn
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_escapes_a_plot(name: str) -> None:
    drawn = [
        plots.curves({name: ([0, 1], [0.5, 0.6])}, name, name),
        plots.confusion_matrix([[1, 2], [3, 4]], [name, f"{name}2"]),
        plots.bars({name: 0.5}, name, name),
        plots.scatter([[(name, 1.0)], []], name, name, name),
    ]
    for svg in drawn:
        page = Page(svg)
        assert not page.faults
        assert not page.scripts


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_interpreted_on_the_terminal(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console(width=200, soft_wrap=True).print(printable(name), highlight=False)
    out = capsys.readouterr().out
    assert out.replace("\\n", "\n") == printable(name).replace("\\n", "\n") + "\n"
    assert not any(ord(character) < 32 and character != "\n" for character in out)
    assert "\u202e" not in out


@pytest.mark.parametrize("name", HOSTILE)
def test_a_log_message_is_one_line(name: str) -> None:
    record = logging.LogRecord("thaw", logging.INFO, "", 0, "%s in both", (name,), None)
    line = LineFormatter("%(levelname)s %(message)s").format(record)
    assert line.startswith("INFO ")
    assert line.isprintable()


def test_a_script_logs_one_line_to_the_terminal() -> None:
    code = (
        "import logging; from engine.processes.terminal import log_to_terminal; "
        "log_to_terminal(); logging.getLogger('thaw').info('%s', 'a\\x1b[31m\\u202e')"
    )
    root = Path(__file__).parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert ended.stderr == "a\\x1b[31m\\u202e\n"
    for name in ("predict", "evaluate"):
        assert "    log_to_terminal()\n" in (root / "thaw" / "commands" / f"{name}.py").read_text()


def test_a_list_in_a_log_message_keeps_its_indented_lines() -> None:
    text = "job 0: 2 faults\n  seed: a\nb\n  model.lr: c"
    record = logging.LogRecord("thaw", logging.ERROR, "", 0, "%s", (text,), None)
    assert LineFormatter("%(message)s").format(record).splitlines() == [
        "job 0: 2 faults",
        "  seed: a\\nb",
        "  model.lr: c",
    ]
    assert one_line(Path("a\nb.csv")) == "a\\nb.csv"


def test_the_error_of_a_command_is_printable(sound: dict[str, Path], tmp_path: Path) -> None:
    called = call("predict", sound["text"], tmp_path / "\x1b[31m\u202e[red]x.csv", cwd=tmp_path)
    assert called.error == f"{tmp_path}/\\x1b[31m\\u202e[red]x.csv: no such file"


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", [DataError, TypeError, ConfigCompositionException])
def test_an_error_is_one_line_whatever_names_are_in_it(
    kind: type[Exception], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with report_failure() as outcome:
        error = kind(f"{name}\n  row 1: fault")
        error.add_note(f"the rows are in {name}")
        raise error
    assert outcome.code == 1
    lines = capsys.readouterr().err.splitlines()
    if kind is TypeError:
        lines = lines[-2:]  # after its traceback
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("the rows are in ")


def test_bad_rows_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    with report_failure():
        raise_bad_rows([BadRow("", f"{name}.csv", 1, 2, "fault") for name in HOSTILE], shown=99)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"error: {len(HOSTILE)} bad rows; ")
    assert len(lines) == len(HOSTILE) + 1
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])


def test_cells_are_written_as_they_were_read(sound: dict[str, Path], tmp_path: Path) -> None:
    """Also those that a spreadsheet program would take for formulas; SECURITY.md says so."""
    texts = ["=cmd|' /C calc'!A0", "+1", "@x", "<script>"]
    pd.DataFrame({"text": texts}).to_csv(tmp_path / "new.csv", index=False)
    called = call(
        "predict", sound["text"], tmp_path / "new.csv", "-o", tmp_path / "o.csv", cwd=tmp_path
    )
    assert called.code == 0
    with (tmp_path / "o.csv").open(newline="") as file:
        assert [row["text"] for row in csv.DictReader(file)] == texts
