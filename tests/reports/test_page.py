"""Reports and comparisons: their content, and how a browser displays them."""

import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from reports.comparison import write_comparison
from reports.mistakes import mistakes
from reports.page import write_report
from reports.record import NotARunError, read_run
from run_folders.files import write_atomically
from run_folders.run_folder import RunFolder
from tests.conftest import SAMPLE, Train

pytestmark = pytest.mark.drawn

CHROMIUM = next(
    (
        path
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (path := shutil.which(name))
    ),
    None,
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
EVIL = "<script>document.title='owned'</script> & \"quoted\" <b>bold</b>"


@pytest.fixture
def run(train: Train) -> RunFolder:
    folder = RunFolder(train(*SAMPLE).folder)
    table = pd.read_parquet(folder.predictions)
    # Four mistakes of known confidence, one with a text that contains HTML.
    table["prediction"] = table["label"]
    for i, (probability, text) in enumerate(
        [(0.6, "zebra crossing"), (0.9, EVIL), (0.7, "zebra stripes"), (0.8, "plain")]
    ):
        wrong = "real" if table.loc[i, "label"] == "fake" else "fake"
        table.loc[i, ["prediction", f"probability_{wrong}", "text"]] = [wrong, probability, text]
        table.loc[i, f"probability_{table.loc[i, 'label']}"] = 1 - probability
    write_atomically(folder.predictions, lambda path: table.to_parquet(path, index=False))
    return folder


def test_the_page_counts_the_groups_of_the_test_split(run: RunFolder) -> None:
    page = " ".join(write_report(run.path).read_text(encoding="utf-8").split())
    assert "groups of" not in page
    plan = run.read_json("plan.json") | {"group_column": "<user>", "groups": {"test": 9}}
    run.write_json("plan.json", plan)
    page = " ".join(write_report(run.path).read_text(encoding="utf-8").split())
    assert "The test split has 9 groups of &lt;user&gt;." in page


def test_page_is_self_contained_escaped_and_complete(run: RunFolder) -> None:
    page = write_report(run.path).read_text(encoding="utf-8")
    assert not re.search(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=[\"'](?!data:)", page)
    assert "http://" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", page).replace(
        "http://www.w3.org", ""
    )
    assert "<script>document.title" not in page
    assert "&lt;script&gt;document.title" in page
    for part in (
        "test accuracy",
        "95 %",
        "n = 40 samples",
        "macro average",
        "micro average",
        "weighted average",
        "Confusion matrix",
        "Reliability",
        "Learning rate",
        "Provenance",
        "sha256",
        "Plan",
        "trains from epoch",
    ):
        assert part in page
    assert page.count("<svg") == 6
    assert "#010203" not in page  # every colour was replaced by one of the theme's


def test_mistakes_are_sorted_by_confidence_within_their_kind(run: RunFolder) -> None:
    kinds = mistakes(read_run(run.path))
    assert sum(kind["count"] for kind in kinds) == 4
    assert {(kind["label"], kind["prediction"]) for kind in kinds} <= {
        ("fake", "real"),
        ("real", "fake"),
    }
    for kind in kinds:
        confidences = [row["confidence"] for row in kind["rows"]]
        assert confidences == sorted(confidences, reverse=True)


def test_many_classes_have_no_confusion_matrix(run: RunFolder) -> None:
    metrics = run.read_json("metrics.json")
    names = [f"class {k}" for k in range(41)]
    one = next(iter(metrics["test"]["per_class"].values()))
    counts = [[int(i == j) for j in range(41)] for i in range(41)]
    metrics["test"] |= {
        "n": 41, "classes": names, "per_class": dict.fromkeys(names, one), "confusion_matrix": counts, "calibration": [],
    }  # fmt: skip
    del metrics["test"]["roc_auc"]
    run.write_json("metrics.json", metrics)
    run.predictions.unlink()  # they are of two classes
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "class 40" in page
    for absent in ("Confusion matrix", "Reliability", ">False"):
        assert absent not in page


def test_a_run_without_test_names_its_validation_predictions(run: RunFolder) -> None:
    metrics = run.read_json("metrics.json")
    run.write_json("metrics.json", {key: metrics[key] for key in metrics if key != "test"})
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "predictions/val.parquet" in page
    assert "predictions/test.parquet" not in page


def test_a_run_whose_record_lacks_the_validation_has_a_page(run: RunFolder) -> None:
    metrics = run.read_json("metrics.json")
    run.write_json("metrics.json", {**metrics, "val": {}})
    assert "(n = -)" in write_report(run.path).read_text()


def test_an_unfinished_run_has_a_page(run: RunFolder) -> None:
    for name in ("metrics.json", "plan.json", "provenance.json", "predictions/test.parquet"):
        (run.path / name).unlink()
    run.write_status("failed", "fit", "loss <nan>")
    page = write_report(run.path).read_text(encoding="utf-8")
    assert "The run failed during fit: loss &lt;nan&gt;" in page
    assert page.count("<svg") == 4
    run.write_history([])
    (run.path / "history.csv").unlink()
    assert "failed" in write_report(run.path).read_text(encoding="utf-8")


def test_a_folder_that_is_no_run_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(NotARunError, match=r"is no run folder: it has no status.json"):
        read_run(tmp_path)


def test_comparison_has_differences_and_an_exact_test(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(Path(shutil.copytree(run.path, tmp_path / "other")))
    table = pd.read_parquet(other.predictions)
    table.loc[:2, "prediction"] = table.loc[:2, "label"]  # three mistakes fewer
    write_atomically(other.predictions, lambda path: table.to_parquet(path, index=False))
    metrics = other.read_json("metrics.json")
    metrics["test"]["acc"] = run.read_json("metrics.json")["test"]["acc"] + 0.075
    other.write_json("metrics.json", metrics)
    page = write_comparison([run.path, other.path], tmp_path / "page.html").read_text(
        encoding="utf-8"
    )
    assert "(+0.0750)" in page
    assert re.search(
        r'<td class="n">0</td><td class="n">3</td>\s*<td class="n">40</td><td class="n">0.25</td>',
        page,
    )
    assert page.count("<svg") == 3


def test_runs_on_other_samples_are_not_tested(run: RunFolder, tmp_path: Path) -> None:
    other = RunFolder(Path(shutil.copytree(run.path, tmp_path / "other")))
    table = pd.read_parquet(other.predictions)
    table.loc[0, "text"] = "another text"  # with the same index and label
    write_atomically(other.predictions, lambda path: table.to_parquet(path, index=False))
    page = write_comparison([run.path, other.path], tmp_path / "page.html").read_text()
    assert "not the same test samples" in page


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "name", ["猫", "犬 한국어", "كلب", "עברית", "😀 ok", "हिन्दी", "ไทย", "𝒳", "a\u200db", "\ufffd"]
)
def test_names_in_any_script_are_drawn_as_text(name: str, caplog: pytest.LogCaptureFixture) -> None:
    """No warning about a missing glyph; the browser draws the text with its own fonts."""
    from reports import plots

    drawn = [
        plots.confusion_matrix([[1, 2], [3, 4]], [name, "b"]),
        plots.bars({name: 1.0}, name, "bars"),
        plots.curves({name: ([1], [2]), "b": ([1], [2])}, name, "curves"),
        plots.scatter([[(name, 1.0)], []], name, "y", "scatter"),
    ]
    assert all(f">{name}</text>" in svg for svg in drawn)
    assert not any("Last Resort" in svg for svg in drawn)
    assert caplog.text == ""


def test_names_with_dollars_and_underscores_are_drawn() -> None:
    from reports.plots import confusion_matrix, curves

    assert "a$_$b" in confusion_matrix([[1, 0], [0, 1]], ["a$_$b", "$x$"])
    assert "_hidden" in curves(
        {"_hidden": ([0, 1], [1.0, 2.0]), "b": ([0, 1], [2.0, 1.0])}, "loss", "x"
    )


def dump(page: Path, fragment: str = "", *flags: str) -> tuple[str, str]:
    """Return the page's DOM after its script ran, and the console output."""
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
               "--virtual-time-budget=3000", *flags, "--dump-dom", page.as_uri() + fragment]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


@needs_chromium
def test_search_filters_the_rows_in_a_browser(run: RunFolder) -> None:
    page = write_report(run.path)

    def shown(fragment: str) -> tuple[int, int, str]:
        dom, console = dump(page, fragment)
        assert not console
        assert "<title>owned" not in dom
        rows = re.findall(r"<tr data-search=[^>]*>", dom)
        found = re.search(r'id="found"[^>]*>([^<]*)<', dom)
        return len(rows), sum("hidden" not in row for row in rows), found[1] if found else ""

    assert shown("") == (4, 4, "")
    assert shown("#search=ZEBRA") == (4, 2, "2 of 4 shown")
    assert shown("#search=zebra%20stripes") == (4, 1, "1 of 4 shown")
    assert shown("#search=nothing-like-it") == (4, 0, "0 of 4 shown")


PROBE = """<script>addEventListener("load", () => { const style = getComputedStyle(document.body);
document.body.dataset.probe = [document.documentElement.scrollWidth, innerWidth, style.backgroundColor, style.color].join("|"); });</script>"""


@needs_chromium
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_a_phone_and_follow_the_theme(
    width: int, dark: bool, run: RunFolder, tmp_path: Path
) -> None:
    pages = [write_report(run.path), write_comparison([run.path, run.path], tmp_path / "page.html")]
    for page in pages:
        probed = tmp_path / f"probed_{page.name}"
        # The width is set by an iframe, because a headless window has a minimum width.
        probed.write_text(
            page.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8"
        )
        frame = tmp_path / "frame.html"
        frame.write_text(
            f'<iframe id="f" src="{probed.name}" width="{width}" height="800" style="border:0"></iframe>'
            "<script>f.onload = () => setTimeout(() => { document.body.dataset.probe = f.contentDocument.body.dataset.probe; }, 50)</script>"
        )
        flags = [
            "--allow-file-access-from-files",
            *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        ]
        dom, console = dump(frame, "", *flags)
        assert not console
        probe = re.search(r'data-probe="([^"]+)"', dom)
        assert probe, dom[:300]
        content, inner, paper, ink = probe[1].split("|")
        assert int(inner) == width
        assert int(content) <= width, f"{page.name} scrolls sideways"
        brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (paper, ink)]
        assert (brightness[0] < brightness[1]) == dark
