"""The configuration of the site, its generated reference, and the check of its links."""

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import thaw.run
from run_folders.nested import nodes
from tests.processes import ROOT

pytest.importorskip("griffe", reason="the extra docs is not installed")
from docs.builder import config_reference, links
from docs.builder.arguments import arguments_of
from docs.builder.yaml_comments import read_config
from lightning_modules.networks.heads import BiGRUHead

CONFIGS = ROOT / "configs"


def pages_of(nav: list[Any]) -> Iterator[str]:
    """Yield the pages of a navigation."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from pages_of(value) if isinstance(value, list) else [value]


def test_the_navigation_has_every_page_once() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    listed = sorted(pages_of(nav))
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "docs"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    written = [name.removeprefix("docs/") for name in tracked if name.endswith(".md")]
    tutorials = [f"tutorials/{path.stem}.md" for path in (ROOT / "docs/tutorials").glob("*.py")]
    groups = sorted({path.parent.name for path in CONFIGS.glob("*/*.yaml")})
    reference = [f"reference/config/{name}.md" for name in ("index", *groups)]
    assert listed == sorted([*written, *tutorials, *reference, "reference/python.md"])


def test_the_report_in_a_tutorial_is_a_file() -> None:
    tutorials = pytest.importorskip("docs.builder.tutorials", exc_type=ImportError)
    shown = thaw.run._FRAME.format(page="&lt;p&gt;a &amp;quot; b&lt;/p&gt;")
    output = tutorials.new_output("display_data", data={"text/html": shown})
    files: dict[str, bytes] = {}
    (merged,) = tutorials._merged([output], "pictures", files)
    assert files == {"pictures/report_0.html": b"<p>a &quot; b</p>"}
    assert 'src="pictures/report_0.html"' in merged.data["text/html"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Group -> its page."""
    pages = config_reference.write_pages(CONFIGS, tmp_path_factory.mktemp("reference"))
    return {page.stem: page.read_text(encoding="utf-8") for page in pages}


def test_the_reference_has_every_key_of_every_config(reference: dict[str, str]) -> None:
    for path in CONFIGS.rglob("*.yaml"):
        group = path.parent.name
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        page = reference.get(group, reference["index"])
        for key, value in nodes(content):
            name = key.rpartition(".")[2]
            if name not in ("defaults", "_target_") and not isinstance(value, dict):
                assert f"{name}`" in page or f"{name}:" in page, (path, key)


def test_an_entry_has_value_type_range_and_comment(reference: dict[str, str]) -> None:
    assert (
        "`model.head.hidden`\n:   `128` · integer from 1\n\n    units in each direction\n"
        in reference["head"]
    )
    # The file has no comment for this key; the docstring explains it.
    assert (
        "`data.batch_size`\n:   `32` · integer from 1\n\n    Texts in a training batch."
        in (reference["data"])
    )
    # An argument that no file sets.
    assert "`+model.optimizer.amsgrad`\n:   `false` · true or false\n" in reference["optimizer"]


def test_comments_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(
        "# @package model.head\n# About the file.\n_target_: my.Head\n# first line,\n# second line\n"
        "a: 1\nb:\n  # inner\n  c: [1, 2]\nd: x  # behind\n"
    )
    read = read_config(file, "head")
    assert read.about == "About the file."
    assert read.targets == {"model.head": "my.Head"}
    found = [(key.path, key.value, key.comment) for key in read.keys]
    assert found[0] == ("model.head.a", "1", "first line, second line")
    assert ("model.head.b.c", "[1, 2]", "inner") in found
    assert ("model.head.d", "x", "behind") in found


def test_arguments_of_a_class() -> None:
    hidden = next(a for a in arguments_of(BiGRUHead) if a.name == "hidden")
    assert (hidden.kind, hidden.default) == ("integer from 1", "128")
    assert hidden.meaning == "Units of the GRU in each direction."


def test_broken_links_and_outside_resources_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text("<p>")
    (tmp_path / "index.html").write_text(
        '<a href="there.html#x"><a href="https://outside.org"><img src="missing.png">'
        '<script src="https://cdn.org/x.js"></script><a href="../up.html"><a href="#here">'
        '<img src="data:image/png;base64,AA">'
    )
    assert links.faults_of(tmp_path) == [
        "index.html: <img> leads to missing.png, which is no file of the site",
        "index.html: <script> loads https://cdn.org/x.js from the network",
        "index.html: <a> leads to ../up.html, which is no file of the site",
    ]
