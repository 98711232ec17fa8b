"""Every type with which transformers classifies texts: loaded, frozen, trained, or refused."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from benchmarks.tiny_texts import tiny_config, types
from datamodules.batches import TextBatch
from datamodules.texts.batching import PadCollator, TokenizedTexts
from datamodules.texts.tokenizing import TextTokenizer, load_tokenizer
from lightning_modules.callbacks.layer_unfreezing import LayerUnfreezing
from lightning_modules.networks.backbones.features import BackboneError
from lightning_modules.networks.backbones.text import Pooling, TextEncoder, text_encoder
from lightning_modules.networks.backbones.text_types import check_reads_texts
from lightning_modules.networks.freezing.layers import layer_numbers
from lightning_modules.text_classifier import TextClassifier
from tests.lightning_modules.text_types import save_tiny, save_tokenizer

ALSO_IMAGES = r"also reads images \(pixel_values\), and the data has only texts"
ALSO_BOXES = r"also reads the position of each word on a page \(bbox\)"
REFUSED = {
    "gemma3": ALSO_IMAGES,
    "layoutlm": ALSO_BOXES,
    "layoutlmv2": ALSO_BOXES,
    "layoutlmv3": ALSO_BOXES,
    "lilt": ALSO_BOXES,
    "modernvbert": ALSO_IMAGES,
    "mra": "no token reads another one, as for attention that needs a GPU kernel",
    "perceiver": r"reads inputs of several kinds \(inputs\) instead of texts",
    "qwen3_5": ALSO_IMAGES,
    "reformer": "pads all training texts to one fixed length",
    "t5gemma2": ALSO_IMAGES,
    "ultravbert": ALSO_IMAGES,
}
READS_PADDING = {
    *("big_bird", "bigbird_pegasus", "canine", "convbert", "fnet", "funnel", "nystromformer"),
    "yoso",
}
TEXTS = ["w5 w9 w30 w7 w8 w11 w12", "w6 w8", "w7 w33 w12 w13 w5 w6 w21 w7 w9 w40 w2"]


LONGER_THAN_ITS_TABLE = "tapas"  # it repeats its last position


@pytest.fixture(autouse=True)
def _without_progress_bars() -> None:
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder, pad_token="[PAD]")
    return load_tokenizer(str(folder))


def batch_of(texts: list[str], tokenizer: TextTokenizer) -> TextBatch:
    count = len(texts)
    tokens = TokenizedTexts(tokenizer.encode(texts, 40), np.zeros(count, int), np.arange(count))
    return PadCollator(tokenizer.pad_id)([tokens[i] for i in range(count)])


@pytest.mark.parametrize("model_type", sorted(REFUSED))
def test_other_type_is_refused_by_name(model_type: str, tmp_path: Path) -> None:
    config = tiny_config(model_type)
    config.save_pretrained(tmp_path)
    if model_type == "mra":
        save_tiny(config, tmp_path)
    with pytest.raises(BackboneError, match=REFUSED[model_type]) as found:
        text_encoder(str(tmp_path), None)
    assert model_type in str(found.value).lower()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("model_type", [name for name in types() if name not in REFUSED])
def test_type_works(
    model_type: str, tmp_path: Path, tokenizer: TextTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    """Features do not depend on the batch; the network freezes, trains and is rebuilt."""
    config = tiny_config(model_type)
    check_reads_texts(config)
    save_tiny(config, tmp_path)
    texts = batch_of(TEXTS, tokenizer)
    frozen = text_encoder(str(tmp_path), None).train()
    traits = frozen.traits
    assert traits is not None
    assert (traits.width, traits.reads_padding) == (16, model_type in READS_PADDING)
    assert caplog.text.count("reads padding") == traits.reads_padding
    pooling: Pooling = "last" if traits.causal else "mean"
    build = partial(TextClassifier, num_classes=3, pooling=pooling)

    # A text's frozen features do not depend on its batch, also in training.
    task = build(str(tmp_path), freeze_backbone=True).train()
    features = task.features(texts).values
    for i, text in enumerate(TEXTS if not traits.reads_padding else ()):
        alone = task.features(batch_of([text], tokenizer)).values
        torch.testing.assert_close(alone[0], features[i], atol=1e-5, rtol=1e-4)
    task.loss_and_predictions(texts)[0].backward()
    assert not any(parameter.grad is not None for parameter in task.features.parameters())

    # A part of the layers trains.
    task = build(str(tmp_path))
    depths = layer_numbers(task.backbone)
    start_layer = next(name for name in depths if depths[name] > 0)
    LayerUnfreezing(start_layer=start_layer).set_plan(task)
    with torch.autocast("cpu", torch.bfloat16):
        loss = task.loss_and_predictions(texts)[0]
    loss.backward()
    trained = {n: p.grad for n, p in task.backbone.named_parameters() if p.requires_grad}
    assert 0 < len(trained) < len(depths)
    assert any(gradient is not None and gradient.any() for gradient in trained.values())
    assert all(p.grad is None for p in task.backbone.parameters() if not p.requires_grad)

    # The values in a checkpoint rebuild the network.
    again = build(json.loads(json.dumps(task.backbone_config())))
    again.load_state_dict(task.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval().logits(texts), task.eval().logits(texts))

    # It reads as many tokens as it says, and not one more.
    if traits.max_tokens is not None and traits.max_tokens < 100:
        row = torch.full((1, traits.max_tokens + 1), 5)
        with torch.no_grad():
            frozen.model(input_ids=row[:, 1:], attention_mask=torch.ones_like(row[:, 1:]))
            if model_type != LONGER_THAN_ITS_TABLE:
                with pytest.raises((IndexError, RuntimeError)):
                    frozen.model(input_ids=row, attention_mask=torch.ones_like(row))


@pytest.mark.parametrize("side", ["right", "left"])
def test_last_pooling_takes_the_last_real_token(side: str) -> None:
    encoder = TextEncoder(_Identity(), "last")
    ids = torch.tensor([[3, 4, 5, 0], [6, 7, 8, 9]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    if side == "left":
        ids, mask = ids.roll(1, dims=1), mask.flip(1)
        ids[1] = torch.tensor([6, 7, 8, 9])
    values = encoder(TextBatch(input_ids=ids, attention_mask=mask)).values  # type: ignore[typeddict-item]
    assert values.tolist() == [[5.0], [9.0]]


class _Identity(torch.nn.Module):
    """Returns the ids as states."""

    config = SimpleNamespace(hidden_size=1)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=input_ids[..., None].float() + 0 * attention_mask[..., None])  # fmt: skip


@pytest.mark.parametrize("pooling", ["pooler", "cls"])
def test_pooling_that_a_decoder_lacks_is_refused(pooling: Pooling) -> None:
    values = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20}
    with pytest.raises(BackboneError, match=r"choose model.pooling=last or mean, or head=bigru"):
        text_encoder(values, pooling)
