"""How much a text network can read, and what the states of its tokens depend on.

The facts are measured with a few short texts, because no configuration states them for all types.

Shapes: `B` texts, `T` tokens, `C` channels.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from lightning_modules.networks.backbones.features import BackboneError
from run_folders.errors import brief

_TOKENS, _FEWEST_TOKENS = 16, 3  # of the text that is tried
_TOLERANCE = 1e-5  # of the largest state; float32 rounds to 1e-7


class TextTraits(NamedTuple):
    """Facts about a text network.

    Attributes:
        width: Number of channels of a token's state, C.
        vocab_size: Number of token ids; None if the network has no table of them.
        max_tokens: Number of tokens that the table of positions can hold; None if the network has
            no such table, as with relative or rotary positions.
        causal: Whether a token's state depends only on the tokens up to it, as in a decoder.
        reads_padding: Whether the states of a text depend on the padding of its batch.
        autocast: Whether the network runs under autocast. DeBERTa does not.
    """

    width: int
    vocab_size: int | None
    max_tokens: int | None
    causal: bool
    reads_padding: bool
    autocast: bool


def measure_traits(encoder: nn.Module, options: Mapping[str, Any]) -> TextTraits:
    """Run a network of transformers on a few short texts and return the facts about it.

    Args:
        encoder: The network. Its weights, modes and the random generators stay the same.
        options: Further arguments of its `forward`.

    Raises:
        BackboneError: If it cannot read texts.
    """
    training = [module for module in encoder.modules() if module.training]
    attention = getattr(encoder, "attention_type", None)
    encoder.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            probes = _probes(encoder, options)
    finally:
        for module in training:
            module.training = True
    if attention == "block_sparse":  # BigBird changes its attention for good at a short text
        cast(Any, encoder).set_attention_type(attention)
    unequal = float(probes.whole.abs().max()) * _TOLERANCE
    causal = _distance(probes.beginning, probes.in_padding) <= unequal
    if causal and _distance(probes.whole[:, -1], probes.other_token[:, -1]) <= unequal:
        msg = (
            f"model.backbone: in {type(encoder).__name__} no token reads another one, as for "
            f"attention that needs a GPU kernel; choose another model type"
        )
        raise BackboneError(msg)
    padding = _distance(probes.alone, probes.in_padding)
    return TextTraits(
        width=probes.whole.shape[-1],
        vocab_size=_vocab_size(encoder),
        max_tokens=min(probes.limits, default=None),
        causal=causal,
        reads_padding=attention == "block_sparse" or not padding <= unequal,
        autocast=probes.autocast,
    )


class _Probes(NamedTuple):
    """States of a text and of variants of it.

    Attributes:
        whole: [1, T, C], the whole text.
        other_token: [1, T, C], with another token before the last one.
        alone: [1, t, C], the first t tokens alone.
        in_padding: [1, t, C], the first t tokens, padded to T.
        limits: How many tokens the tables of positions can hold.
        autocast: Whether the text can be read under autocast.
    """

    whole: Tensor
    other_token: Tensor
    alone: Tensor
    in_padding: Tensor
    limits: list[int]
    autocast: bool

    @property
    def beginning(self) -> Tensor:
        """States of the first t tokens in the whole text."""
        return self.whole[:, : self.alone.shape[1]]


def _probes(encoder: nn.Module, options: Mapping[str, Any]) -> _Probes:
    """Return the states of a text, which is shorter if the network cannot read the first one.

    Raises:
        BackboneError: If it can read neither.
    """
    errors: list[Exception] = []
    for tokens in (_TOKENS, _FEWEST_TOKENS):
        try:
            return _probes_of(encoder, options, tokens)
        except Exception as error:
            errors.append(error)
    msg = (
        f"model.backbone: {type(encoder).__name__} cannot read a short text "
        f"({brief(errors[0])}); choose another model type or correct its configuration"
    )
    raise BackboneError(msg) from errors[0]


def _probes_of(encoder: nn.Module, options: Mapping[str, Any], tokens: int) -> _Probes:
    pad, vocab_size = getattr(encoder.config, "pad_token_id", None), _vocab_size(encoder)
    usable = [i for i in range(vocab_size or tokens) if i != pad][:tokens]
    ids = torch.tensor([[usable[-i % len(usable)] for i in range(tokens)]])
    other, padded, few = ids.clone(), ids.clone(), tokens // 2
    other[:, -2] = ids[:, -1]
    padded[:, few:] = pad if isinstance(pad, int) and 0 <= pad < (vocab_size or 1) else 0
    mask, padded_mask = torch.ones_like(ids), (torch.arange(tokens) < few).long()[None]

    def states(ids: Tensor, mask: Tensor) -> Tensor:
        found: Tensor = encoder(input_ids=ids, attention_mask=mask, **options).last_hidden_state
        if found.shape[:2] != ids.shape:
            msg = f"it returns states of shape {[*found.shape]} for {ids.shape[1]} tokens"
            raise ValueError(msg)
        return found

    with _PositionTables(tokens) as positions:
        whole = states(ids, mask)
    autocast = True
    try:
        with torch.autocast("cpu", torch.bfloat16):
            states(ids, mask)
    except RuntimeError:
        autocast = False
    return _Probes(
        whole,
        states(other, mask),
        states(ids[:, :few], mask[:, :few]),
        states(padded, padded_mask)[:, :few],
        positions.limits,
        autocast,
    )


def _distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _vocab_size(encoder: Any) -> int | None:  # noqa: ANN401 - a network of transformers
    try:
        table = encoder.get_input_embeddings()
    except NotImplementedError:  # CANINE has no table of ids
        return None
    weight = getattr(table, "weight", None)
    return None if weight is None else int(weight.shape[0])


class _PositionTables(TorchFunctionMode):
    """Records the tables in which the tokens of one text look up first, first + 1, first + 2, ....

    Attributes:
        limits: How many tokens each table has positions for.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.limits = tokens, list[int]()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - the result of any function
        """Record a look-up and call the function."""
        found, given = None, kwargs or {}
        if func is functional.embedding:
            found = args[0], args[1].shape[0]
        elif func is Tensor.__getitem__:
            index = args[1][0] if isinstance(args[1], tuple) and args[1] else args[1]
            found = index, args[0].shape[0] if args[0].ndim else 0
        elif func is torch.gather:
            dim = args[1] if len(args) > 1 else given["dim"]
            found = args[2] if len(args) > 2 else given["index"], args[0].shape[dim]  # noqa: PLR2004
        result = func(*args, **given)
        if found is not None and isinstance(found[0], Tensor):
            self._record(*found)
        return result

    def _record(self, index: Tensor, size: int) -> None:
        if index.dtype not in (torch.int32, torch.int64) or index.numel() == 0:
            return
        rows = index[..., 0] if index.ndim > 2 else index  # noqa: PLR2004 - [1, T, C] of a gather
        row = rows.reshape(-1)[: self.tokens]
        if len(row) == self.tokens and bool((row.diff() == 1).all()):
            self.limits.append(size - int(row[0]))
