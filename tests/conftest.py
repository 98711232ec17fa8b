"""Fixtures: small real inputs, and the real entry point to run them with."""

import csv
import gc
import importlib.util
import logging
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = (
    "1"  # no test downloads anything, and none waits for a hub that does not answer
)
# Several processes run the tests and share the cores.
os.environ["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ.get("TF_NUM_INTRAOP_THREADS", "1")
# Hypothesis would write into the checkout.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(Path(tempfile.gettempdir(), "thaw-hypothesis"))

import pytest

from tests.blank_plots import NAMES, blank
from tests.checkout import listed
from tests.processes import ROOT, servers

EXTRAS = {
    "mlflow": "mlflow",
    "ray": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}
SHARED_DATA = ROOT.parent / "shared" / "data"
WORDS = [
    "masks",
    "wash",
    "hands",
    "doctors",
    "say",
    "cure",
    "found",
    "bleach",
    "kills",
    "virus",
    "cases",
    "rise",
    "today",
    "vaccine",
    "trial",
    "shows",
    "garlic",
    "helps",
]


@dataclass
class Ended:
    """How a run of the entry point ended."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def error(self) -> str:
        """The error message from `error: ` on; empty if there is none."""
        return self.err[self.err.index("error: ") :].strip() if "error: " in self.err else ""


Train = Callable[..., Ended]


_LISTED = pytest.StashKey[set[str] | None]()


def _controls(config: pytest.Config) -> bool:
    """Whether this process controls the tests, and is no worker of pytest-xdist."""
    return not hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """Start the process servers, and collect old garbage less often.

    Most old objects come from imports and never become garbage.
    """
    gc.set_threshold(700, 10, 100)
    if _controls(config):
        stack = ExitStack()
        stack.enter_context(servers())
        config.add_cleanup(stack.close)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Record the files of the checkout before the tests."""
    if _controls(session.config):
        session.config.stash[_LISTED] = listed(ROOT)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if the tests have written into the checkout."""
    if not _controls(session.config):
        return
    before, after = session.config.stash[_LISTED], listed(ROOT)
    if before is not None and after is not None and before != after:
        for line in ("", "the tests have written into the checkout:", *sorted(before ^ after)):
            session.config.get_terminal_writer().line(line, red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests of extras that are not installed."""
    for mark in item.iter_markers("extra"):
        (extra,) = mark.args
        if importlib.util.find_spec(EXTRAS[extra]) is None:
            pytest.skip(f"the extra {extra} is not installed: pip install -e '.[{extra}]'")


@pytest.fixture(scope="session", autouse=True)
def feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cache folder of features for runs in all processes of the tests, never the user's own."""
    folder = tmp_path_factory.mktemp("features")
    os.environ["THAW_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def _no_closed_handlers() -> None:
    """Remove handlers that Hydra left in an earlier test: they write to its stderr, now closed."""
    root = logging.getLogger()
    for handler in root.handlers.copy():
        if getattr(getattr(handler, "stream", None), "closed", False):
            root.removeHandler(handler)


@pytest.fixture(autouse=True)
def _blank_plots(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw plots only in tests that look at them."""
    plots = sys.modules.get("reports.plots")
    if plots is not None and request.node.get_closest_marker("drawn") is None:
        for name in NAMES:
            monkeypatch.setattr(plots, name, blank)


@pytest.fixture
def train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Train:
    """Call `train.main()` with overrides, in an empty folder.

    The run folder is `tmp_path/run` unless another folder is given.
    """
    import train as entry

    def call(*overrides: str, folder: Path | None = None) -> Ended:
        target = folder or tmp_path / "run"
        with monkeypatch.context() as patch:
            patch.chdir(tmp_path)
            # On the CPU even if there is a GPU: tests compare it with values from the CPU.
            patch.setattr(
                sys,
                "argv",
                ["train.py", "trainer.accelerator=cpu", *overrides, f"hydra.run.dir={target}"],
            )
            capsys.readouterr()
            handlers = logging.getLogger().handlers.copy()
            code = entry.main()
            # Hydra's handlers write to this test's stderr, which is closed later.
            logging.getLogger().handlers[:] = handlers
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err, target)

    return call


def identical(a: object, b: object) -> bool:
    """Whether two nested dicts, lists, tensors and plain values are bitwise equal."""
    import torch  # here and below: the controller needs no torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(identical, a, b))
    return type(a) is type(b) and a == b


_SMALL = (
    "data.rows={train: 96, val: 32, test: 40}",
    "trainer.max_epochs=2",
    "model.backbone.num_hidden_layers=1",
)
SAMPLE = (*_SMALL, "model.head.hidden=8")
LINEAR_SAMPLE = (*_SMALL, "head=linear")


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer BERT with random weights and its tokenizer, saved as a user's own would be."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("backbone")
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{c}" for c in letters),
        *WORDS,
    ]
    backend = Tokenizer(
        models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def made_rows(
    count: int, seed: int, labels: tuple[str, ...] = ("fake", "real")
) -> list[tuple[str, str, str]]:
    """Rows (id, text, label) with distinct texts."""
    rng = random.Random(seed)
    return [
        (
            str(i + 1),
            f"{' '.join(rng.choices(WORDS, k=rng.randint(2, 12)))} {seed} {i}",
            labels[i % len(labels)],
        )
        for i in range(count)
    ]


def write_csv(
    path: Path, rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("id", "tweet", "label")
) -> Path:
    """Write a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


@pytest.fixture
def covid_dir(tmp_path: Path) -> Path:
    """A data folder with a small dataset in the layout of covid_fake_news."""
    for name, count, seed in (("train", 64, 1), ("val", 24, 2), ("test", 27, 3)):
        write_csv(tmp_path / "data" / "covid_fake_news" / f"{name}.csv", made_rows(count, seed))
    return tmp_path / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real data; skips the test if it is not on this machine."""
    if not (SHARED_DATA / "covid_fake_news" / "train.csv").is_file():
        pytest.skip("the real data is not on this machine")
    return SHARED_DATA
