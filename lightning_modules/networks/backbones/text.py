"""Pretrained text encoders as the `features` part of a classifier.

Shapes: `B` texts, `T` tokens, `C` channels.
"""

import inspect
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from datamodules.batches import TextBatch
from lightning_modules.networks.backbones.divided_encoder import DividedEncoder
from lightning_modules.networks.backbones.features import BackboneError, Features
from lightning_modules.networks.backbones.hugging_face import (
    hf_config,
    hf_config_of,
    hf_loading_error,
)
from lightning_modules.networks.backbones.text_traits import (
    TextTraits,
    measure_traits,
)
from lightning_modules.networks.backbones.text_types import check_reads_texts
from lightning_modules.networks.dividing.layer_states import (
    PooledState,
    layer_inputs,
    pooled_texts,
)
from lightning_modules.networks.dividing.recording import Record, TrialInput, record
from lightning_modules.networks.kernels.cpu_layers import use_cpu_layers
from run_folders.errors import brief
from run_folders.memory import check_model_folder

log = logging.getLogger(__name__)

# Advice where the hub cannot be reached.
_RANDOM_WEIGHTS = "model.backbone='{model_type: bert}' data.tokenizer='{vocab_size: 2000}'"

Pooling = Literal["pooler", "cls", "mean", "last"]


class TextEncoder(DividedEncoder):
    """A Hugging Face network that returns pooled vectors or the hidden states of the tokens.

    The network is the attribute `model`; its layers are `features.model.encoder.layer.0` and so on.
    Encoders, decoders and the encoder of an encoder-decoder can be used.

    Attributes:
        config: The configuration that rebuilds the network.
        traits: What the network reads and depends on; None for a network that is not from
            transformers.
    """

    def __init__(
        self, encoder: nn.Module, pooling: Pooling | None, config: PretrainedConfig | None = None
    ) -> None:
        """Wrap an encoder.

        Args:
            encoder: A network whose output has `last_hidden_state` [B, T, C].
            pooling: How the vector of a text is computed: the output of the encoder's `pooler`, the
                hidden state of the `cls` token, the `mean` of the hidden states, or the hidden
                state of the `last` token, for decoders. None returns the hidden states of all
                tokens.
            config: The configuration that rebuilds the network; None means the encoder's own.

        Raises:
            BackboneError: If the encoder has no such vector, or cannot read texts.
        """
        super().__init__()
        # Decoders store keys and values for further tokens, which classification never reads.
        named = inspect.signature(encoder.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in named else {}
        self.traits = (
            measure_traits(encoder, self._options) if isinstance(encoder, PreTrainedModel) else None
        )
        has_pooler = getattr(encoder, "pooler", None) is not None
        _check_pooling(type(encoder).__name__, pooling, self.traits, has_pooler=has_pooler)
        if has_pooler and pooling != "pooler":
            # Its output is unused, so its parameters must be neither trained nor counted. Some
            # networks call it in any case.
            encoder.register_module("pooler", nn.Identity())
        use_cpu_layers(encoder)
        self.model = encoder
        self.config: PretrainedConfig = config or encoder.config  # type: ignore[assignment]
        self.pooling = pooling
        if self.traits is not None and self.traits.reads_padding:
            log.warning(
                "%s reads padding: the result of a text depends on the longest text of its batch",
                type(encoder).__name__,
            )

    @property
    def width(self) -> int:
        """Number of channels of a feature vector, `C`."""
        return int(self.config.hidden_size) if self.traits is None else self.traits.width

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Return a context without autocast for a network that fails under it."""
        fails = self.traits is not None and not self.traits.autocast
        return torch.autocast(device.type, enabled=False) if fails else nullcontext()

    def forward(self, batch: TextBatch) -> Features:
        """Encode a batch.

        Args:
            batch: Padded texts.

        Returns:
            [B, C] pooled vectors, or [B, T, C] hidden states with the lengths of the texts.
        """
        return self._run(batch["input_ids"], batch["attention_mask"])

    def record(self) -> Record:
        """Run `model` on a few random texts and record which modules run."""
        device = next(self.model.parameters()).device
        random = torch.Generator().manual_seed(0)
        few = self.traits.vocab_size if self.traits and self.traits.vocab_size else 2
        trials = []
        for count, tokens in ((2, 7), (3, 7), (3, 11)):
            lengths = torch.tensor([tokens - i for i in range(count)], device=device)
            ids = torch.randint(few, (count, tokens), generator=random).to(device)
            mask = _mask(lengths, tokens)
            run, run_blank = partial(self._values, ids, mask), partial(self._values, ids * 0, mask)
            trials.append(TrialInput((count, tokens), run, run_blank))
        return record(self.model, trials)

    def why_undivided(self) -> str:
        """Return why the network can be divided before no layer; empty if it can."""
        if self.traits is None or self.traits.reads_padding:
            return "the states of its tokens depend on the padding, which is not stored"
        return ""

    def forward_until(self, layer: str, batch: TextBatch) -> Features:
        """Return the input of a layer of `model`, [B, T, C], with the lengths of the texts."""
        mask = batch["attention_mask"]
        run = partial(self._run, batch["input_ids"], mask)
        state = self.parts(layer).forward_until(self.model, run)
        return Features(state, mask.sum(dim=1))

    def forward_from(self, layer: str, state: Features) -> Features:
        """Return what `forward` returns, from the input of a layer."""
        count, tokens = state.values.shape[:2]
        assert state.lengths is not None  # noqa: S101 - tells the type checker
        mask = _mask(state.lengths, tokens)
        run = partial(self._run, torch.zeros_like(mask), mask)
        parts = self.parts(layer)
        return cast(Features, parts.forward_from(self.model, state.values, (count, tokens), run))

    def layer_features(self, layers: Sequence[str], batch: TextBatch) -> dict[str | None, Features]:
        """Run once, and return the input of each layer and, for None, the output."""
        mask = batch["attention_mask"]
        run = partial(self._run, batch["input_ids"], mask)
        states, output = layer_inputs(self.model, layers, run)
        found: dict[str | None, Features] = {None: output}
        return found | {layer: Features(state, mask.sum(1)) for layer, state in states.items()}

    def pooled_states(self, layers: Sequence[str], batch: TextBatch) -> dict[PooledState, Tensor]:
        """Return the inputs of layers and the output, each pooled to vectors [B, C]."""
        mask = batch["attention_mask"]
        run = partial(self._run, batch["input_ids"], mask)
        states, output = layer_inputs(self.model, layers, run)
        causal = self.traits is not None and self.traits.causal
        pooled = pooled_texts(states, mask, causal=causal)
        if output.lengths is None:
            return {**pooled, PooledState(None, str(self.pooling)): output.values.float()}
        own = pooled_texts({"": output.values}, mask, causal=causal)
        return pooled | {PooledState(None, state.pooling): v for state, v in own.items()}

    def _values(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self._run(ids, mask).values

    def _run(self, ids: Tensor, mask: Tensor) -> Features:
        """Encode token ids [B, T] with their mask [B, T]."""
        with self._autocast(mask.device):
            output = self.model(input_ids=ids, attention_mask=mask, **self._options)
        if self.pooling is None:
            return Features(output.last_hidden_state, mask.sum(dim=1))
        if self.pooling == "pooler":
            return Features(output.pooler_output)
        states: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return Features(states[:, 0])
        if self.pooling == "last":
            positions = torch.arange(mask.shape[1], device=mask.device)
            last = (positions * mask).argmax(dim=1)
            return Features(states[torch.arange(len(states), device=mask.device), last])
        # A sum over many tokens is inexact in half precision.
        states = states.float() if states.dtype.itemsize == 2 else states  # noqa: PLR2004
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return Features(mean.to(next(self.model.parameters(), mean).dtype))


def _mask(lengths: Tensor, tokens: int) -> Tensor:
    """Return the attention mask [B, T] of texts of these lengths."""
    return (torch.arange(tokens, device=lengths.device) < lengths[:, None]).long()


def _check_pooling(
    name: str, pooling: Pooling | None, traits: TextTraits | None, *, has_pooler: bool
) -> None:
    """Raise `BackboneError` if a network has no vector of that pooling."""
    causal = traits is not None and traits.causal
    advice = f"choose model.pooling={'last' if causal else 'cls'} or mean, or head=bigru"
    if pooling == "pooler" and not has_pooler:
        msg = f"{name} has no pooler: {advice}"
        raise BackboneError(msg)
    if pooling == "cls" and causal:
        msg = f"model.pooling=cls: the first token of {name}, a decoder, reads no other; {advice}"
        raise BackboneError(msg)


def text_encoder(
    backbone: str | Mapping[str, Any] | nn.Module, pooling: Pooling | None
) -> TextEncoder:
    """Build an encoder in float32.

    Args:
        backbone: A hub name, a local folder written by `save_pretrained`, a mapping of
            configuration values with `model_type` for random weights, or a module that is called
            like an encoder of transformers and has `config.hidden_size`.
        pooling: See `TextEncoder`.

    Returns:
        The encoder, in train mode.

    Raises:
        BackboneError: If the backbone does not exist, does not read texts, or its weights are
            damaged or incomplete.
    """
    if isinstance(backbone, nn.Module):
        return TextEncoder(backbone, pooling).train()
    if not isinstance(backbone, str):
        config = hf_config(backbone)
        return TextEncoder(_without_decoder(_random(config)), pooling, config)
    check_model_folder(Path(backbone))
    config = hf_config_of(backbone, _RANDOM_WEIGHTS)
    check_reads_texts(config)
    try:
        network, loading = AutoModel.from_pretrained(
            backbone,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except Exception as error:  # the loaders raise many types, from OSError to SafetensorError
        raise BackboneError(hf_loading_error(backbone, error, _RANDOM_WEIGHTS)) from error
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    wrapped = TextEncoder(_without_decoder(network), pooling, config)
    used = {names[id(parameter)] for parameter in wrapped.parameters()}
    missing = sorted(set(loading["missing_keys"]) & used)
    if missing:
        listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")  # noqa: PLR2004
        advice = (
            "; choose model.pooling=cls or mean"
            if all("pooler" in name for name in missing)
            else ""
        )
        msg = f"{backbone}: no weights for {listed}, so they would be random{advice}"
        raise BackboneError(msg)
    return wrapped.train()


def _random(config: PretrainedConfig) -> nn.Module:
    """Return a network with random weights."""
    check_reads_texts(config)
    try:
        network: nn.Module = AutoModel.from_config(
            config, dtype=torch.float32, trust_remote_code=False
        )  # type: ignore[no-untyped-call]
    except Exception as error:  # constructors raise any exception
        msg = (
            f"model.backbone: {config.model_type} cannot be built from these values: {brief(error)}"
        )
        raise BackboneError(msg) from error
    return network


def _without_decoder(network: Any) -> nn.Module:  # noqa: ANN401 - a network of transformers
    """Return the encoder of an encoder-decoder, and any other network as it is."""
    has_decoder = "decoder_input_ids" in inspect.signature(network.forward).parameters
    encoder: nn.Module = network.get_encoder() if has_decoder else network
    return encoder
