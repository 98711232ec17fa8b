"""A backbone folder that names code of its own: nothing asks, and nothing of it runs."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from datamodules.reading.errors import DataError
from datamodules.texts.tokenizing import load_tokenizer
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.segmentation import segmentation_network
from lightning_modules.networks.backbones.text import text_encoder
from tests.conftest import Train

AUTO_MAP = {
    "AutoConfig": "own.Config",
    "AutoModel": "own.Model",
    "AutoModelForSemanticSegmentation": "own.Model",
    "AutoTokenizer": ["own.Slow", "own.Fast"],
}


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr("sys.stdin", answers)
    return answers


@pytest.fixture
def folder(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A backbone with a file of code that leaves a mark when it runs."""
    copy = Path(shutil.copytree(tiny_backbone, tmp_path / "stranger"))
    mark = copy / "ran"
    (copy / "own.py").write_text(
        f"open({str(mark)!r}, 'w')\nclass Config: pass\nclass Model: pass\nclass Fast: pass\n"
    )
    return copy


def change(file: Path, **values: Any) -> None:
    known = json.loads(file.read_text()) | values
    file.write_text(json.dumps({key: value for key, value in known.items() if value is not None}))


def nothing_happened(folder: Path, stdin: io.StringIO) -> bool:
    return not (folder / "ran").exists() and stdin.tell() == 0


@pytest.mark.parametrize(
    "values",
    [
        {"auto_map": AUTO_MAP, "model_type": "own"},
        {"auto_map": AUTO_MAP, "model_type": None},
        {"auto_map": {"AutoModel": "owner/name--own.Model"}, "model_type": "own"},
        {"attn_implementation": "owner/kernel"},
        {"_attn_implementation": "owner/kernel"},
        {"text_config": {"attn_implementation": "owner/kernel"}},
    ],
    ids=str,
)
def test_a_network_with_code_of_its_own_is_refused(
    values: dict[str, Any], folder: Path, stdin: io.StringIO
) -> None:
    change(folder / "config.json", **values)
    refusal = (
        r"in config.json names code \(.*\), and Thaw does not run code of a model folder; choose"
    )
    with pytest.raises(BackboneError, match=refusal) as found:
        text_encoder(str(folder), None)
    assert str(folder) in str(found.value)
    with pytest.raises(BackboneError, match=refusal):
        segmentation_network(str(folder), 3)
    assert nothing_happened(folder, stdin)


def test_a_known_type_is_built_by_transformers(
    folder: Path, tiny_backbone: Path, stdin: io.StringIO, caplog: pytest.LogCaptureFixture
) -> None:
    change(folder / "config.json", auto_map=AUTO_MAP)
    change(folder / "tokenizer_config.json", auto_map=AUTO_MAP)
    ours, plain = text_encoder(str(folder), None), text_encoder(str(tiny_backbone), None)
    for name, weight in plain.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight)
    assert load_tokenizer(str(folder)).vocab_size == load_tokenizer(str(tiny_backbone)).vocab_size
    assert caplog.text.count("Thaw does not run code of a model folder, so auto_map") == 2
    assert nothing_happened(folder, stdin)


def test_a_tokenizer_with_code_of_its_own_is_refused(folder: Path, stdin: io.StringIO) -> None:
    change(folder / "config.json", model_type="own", auto_map=AUTO_MAP)
    change(folder / "tokenizer_config.json", tokenizer_class="Own", auto_map=AUTO_MAP)
    with pytest.raises(DataError, match=r"names code \(auto_map\), and Thaw does not run code"):
        load_tokenizer(str(folder))
    assert nothing_happened(folder, stdin)


def test_a_run_neither_asks_nor_runs_the_code(
    train: Train, folder: Path, tiny_backbone: Path, stdin: io.StringIO
) -> None:
    change(folder / "config.json", model_type="own", auto_map=AUTO_MAP)
    for tokenizer in (folder, tiny_backbone):
        ended = train(
            "data=sample_text", "model=text_classifier", f"model.backbone={folder}",
            f"data.tokenizer={tokenizer}", folder=folder / f"run_{tokenizer.name}",
        )  # fmt: skip
        assert ended.code == 1
        assert len(ended.error.splitlines()) == 1
        assert f"{folder}: " in ended.error
        assert "Thaw does not run code of a model folder" in ended.error
        assert "[y/N]" not in ended.out + ended.err
    assert nothing_happened(folder, stdin)
