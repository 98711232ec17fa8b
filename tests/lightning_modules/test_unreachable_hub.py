"""Backbones and tokenizers of the Hub on a machine without a network."""

import logging
from collections.abc import Callable
from typing import NoReturn

import pytest
from transformers import AutoTokenizer, PretrainedConfig
from transformers.models.auto import tokenization_auto

from datamodules.reading.errors import DataError
from datamodules.texts.tokenizing import load_tokenizer
from engine.processes.library_warnings import filter_known
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.segmentation import segmentation_network
from lightning_modules.networks.backbones.text import text_encoder

RANDOM_TEXTS = "model.backbone='{model_type: bert}' data.tokenizer='{vocab_size: 2000}'"
REASON = "We couldn't connect to the Hub to load the files, and couldn't find them in the cache"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Let each download fail; returns whether each one was limited to the cache."""
    asked: list[bool] = []

    def fail(*_: object, local_files_only: bool = False, **__: object) -> NoReturn:
        asked.append(local_files_only)
        raise OSError(f"{REASON}. {'Check your internet connection. ' * 3}https://hug" + "g" * 90)

    monkeypatch.setattr(PretrainedConfig, "get_config_dict", fail)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
    monkeypatch.setattr(tokenization_auto, "get_tokenizer_config", fail)
    return asked


@pytest.mark.parametrize(
    ("load", "random_weights"),
    [
        (lambda: text_encoder("owner/net", "mean"), RANDOM_TEXTS),
        (lambda: segmentation_network("owner/net", 3), "model.backbone='{model_type: segformer}'"),
        (lambda: load_tokenizer("owner/net"), RANDOM_TEXTS),
    ],
    ids=["texts", "masks", "tokenizer"],
)
def test_the_error_names_random_weights(load: Callable[[], object], random_weights: str) -> None:
    with pytest.raises((BackboneError, DataError)) as raised:
        load()
    message = str(raised.value)
    assert "owner/net" in message
    assert f"({REASON}. Check your internet connection" in message
    assert "https://" not in message
    assert message.endswith(
        f"; go online once, set model.backbone to a local folder, or start from random weights "
        f"with {random_weights}; HF_HUB_OFFLINE=1 reads only the cache"
    )


def test_the_hub_is_asked_once_for_a_tokenizer(offline: list[bool]) -> None:
    with pytest.raises(DataError):
        load_tokenizer("owner/net")
    assert offline == [False, True, True]


def test_retries_are_not_logged() -> None:
    filter_known()
    assert not logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)
