"""Every code block of README and of the documentation is run or checked."""

import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from transformers import BertConfig, BertModel

from engine.config.errors import ConfigError
from tests.conftest import SAMPLE
from tests.docs.blocks import Page
from tests.docs.configs import check_configs, kind_of_command, with_two_jobs
from tests.docs.workplace import Workplace
from tests.processes import ROOT, run

PAGES = [
    "README.md",
    *subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "docs/*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split(),
]
_RUNS = {
    "texts": SAMPLE,
    "images": ("experiment=sample_images", "data.rows={train: 32, val: 16, test: 16}"),
    "masks": ("experiment=sample_scenes", "data.rows={train: 16, val: 8, test: 6}"),
    "sweep": ("-m", *SAMPLE, "seed=1,2"),
}


@pytest.fixture(scope="session")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Returns a finished run of texts, images or masks, or a sweep."""

    @cache
    def finished(kind: str) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        place = "hydra.sweep.dir" if kind == "sweep" else "hydra.run.dir"
        code, _, err = run(
            *_RUNS[kind],
            "trainer.accelerator=cpu",
            "trainer.max_epochs=1",
            f"{place}={folder / 'run'}",
            program="train.py",
            cwd=folder,
        )
        assert code == 0, err
        return folder / "run"

    return finished


@pytest.fixture(scope="session")
def deep_backbone(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text encoder with as many layers as BERT, each of them small."""
    folder = tmp_path_factory.mktemp("deep") / "backbone"
    shutil.copytree(tiny_backbone, folder)
    config = BertConfig.from_pretrained(tiny_backbone)
    config.num_hidden_layers = 12
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", PAGES)
def test_code_blocks(
    name: str, tmp_path: Path, deep_backbone: Path, run_of: Callable[[str], Path]
) -> None:
    page = Page(ROOT / name, Workplace(tmp_path, deep_backbone, run_of))
    page.check()
    print(*page.seconds, "not run:", *page.skipped, sep="\n")
    assert not page.faults, "\n\n".join(page.faults)


def test_what_cannot_be_checked_is_a_fault(
    tmp_path: Path, deep_backbone: Path, run_of: Callable[[str], Path]
) -> None:
    """A page made up for this test: only the first and the last block are in order."""
    path = tmp_path / "page.md"
    path.write_text(
        "```python\nx = 1\n```\n\n```\nno language\n```\n\n```sh\nunknown-program\n```\n\n"
        "```python\nassert x == 2\n```\n\n```sh\npip install -e '.[nothing]'\n```\n\n"
        "<!--- skip: next -->\n\n```python\ny\n```\n\n"
        '<!--- skip: next "needs an account" -->\n\n```sh\nunknown-program\n```\n'
    )
    page = Page(path, Workplace(tmp_path, deep_backbone, run_of))
    page.check()
    assert page.checked == 1
    assert [fault.split(": ", 1)[1] for fault in page.faults] == [
        "AssertionError: no known way to check a block of no language",
        "AssertionError: no known way to check the program 'unknown-program'",
        "AssertionError: ",
        "AssertionError: no extra nothing",
        "skipped without a reason",
    ]
    assert [line.rpartition(": ")[2] for line in page.skipped] == ["needs an account"]


def test_a_command_like_one_that_has_run_is_validated(tmp_path: Path) -> None:
    place = Workplace(tmp_path, tmp_path, lambda kind: tmp_path)
    assert kind_of_command(["head=bigru", "model.lr=1e-3", "seed=1"]) == {"head=bigru"}
    assert kind_of_command(["data.files={train: a}", "a.b._target_=c.D"]) == {
        "data.files={train: a}",
        "a.b._target_=c.D",
    }
    check_configs(["model.lr=1e-3"], place, sweep=False)
    with pytest.raises(ConfigError, match="received 'fast'"):
        check_configs(["model.lr=fast"], place, sweep=False)
    with pytest.raises(ConfigError, match="received 'fast'"):
        check_configs(["model.lr=1e-3,fast"], place, sweep=True)
    overrides = ["head=linear,bigru", "seed=range(5)", "model.lr=1e-3"]
    assert list(with_two_jobs(overrides)) == ["head=linear,bigru", "seed=0", "model.lr=1e-3"]
