"""TokenLearner as a part of a vision transformer of timm."""

from collections import OrderedDict
from typing import Annotated, Literal, Required, TypedDict

import torch
from annotated_types import Ge, Interval
from timm.models import VisionTransformer
from torch import Tensor, nn

from lightning_modules.networks.tokens.errors import TokenError
from lightning_modules.networks.tokens.learning import ConvTokenLearner, TokenFuser, TokenLearner
from run_folders.errors import nearest

Version = Literal["1.0", "1.1"]


class LearnTokens(TypedDict, total=False):
    """The arguments of `learn_tokens`."""

    after: Required[str]
    number: Required[Annotated[int, Ge(1)]]
    version: Version
    fuser: bool
    mean: bool
    dropout: Annotated[float, Interval(ge=0, lt=1)]


_BLOCKS, _NEW = "blocks", "token_learner"


class LearnedTokens(nn.Module):
    """Replaces the tokens of the patches by learned tokens; class tokens stay first."""

    def __init__(self, learner: nn.Module, prefix: int) -> None:
        """Build the module.

        Args:
            learner: Computes [B, N, C] -> [B, S, C].
            prefix: Number of first tokens that stay, such as the class token.
        """
        super().__init__()
        self.learner, self.prefix = learner, prefix

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, prefix + N, C] -> [B, prefix + S, C]."""
        return torch.cat([x[:, : self.prefix], self.learner(x[:, self.prefix :])], dim=1)


class FusedBlock(nn.Module):
    """Runs a block on learned tokens, and adds its output to all tokens of the patches."""

    def __init__(self, block: nn.Module, learner: LearnedTokens, fuser: TokenFuser) -> None:
        """Build the module.

        Args:
            block: The block, for [B, prefix + S, C].
            learner: Computes the input of the block.
            fuser: Adds the learned tokens to all tokens.
        """
        super().__init__()
        self.block, self.token_learner, self.fuser = block, learner, fuser

    def forward(self, x: Tensor) -> Tensor:
        """Compute [B, prefix + N, C] -> [B, prefix + N, C]."""
        prefix = self.token_learner.prefix
        y = self.block(self.token_learner(x))
        return torch.cat([y[:, :prefix], self.fuser(y[:, prefix:], x[:, prefix:])], dim=1)


def learn_tokens(
    model: nn.Module,
    after: str,
    number: Annotated[int, Ge(1)],
    version: Version = "1.1",
    fuser: bool = False,  # noqa: FBT001, FBT002 - named in the config
    mean: bool = False,  # noqa: FBT001, FBT002 - named in the config
    dropout: Annotated[float, Interval(ge=0, lt=1)] = 0.0,
) -> list[str]:
    """Put learned tokens into a vision transformer.

    Args:
        model: The network, changed in place. Its blocks keep their names.
        after: Name of the block that the learned tokens come after, such as `blocks.8`.
        number: S.
        version: 1.1, `TokenLearner`, or 1.0, `ConvTokenLearner`.
        fuser: Whether each later block learns tokens of its own, and adds its output to all tokens;
            otherwise the later blocks process the learned tokens alone.
        mean: With version 1.0, whether learned tokens are means, and not sums.
        dropout: Dropout probability within the MLPs.

    Returns:
        The names of the new modules.

    Raises:
        TokenError: If the network has no such block, or none after it.
    """
    if not isinstance(model, VisionTransformer):
        msg = (
            f"{type(model).__name__} needs all tokens in their places; choose a ViT or DeiT of timm"
        )
        raise TokenError(msg)
    names = [f"{_BLOCKS}.{name}" for name, _ in model.blocks.named_children()]
    if after not in names[:-1]:
        known = nearest(after, names[:-1]) if after not in names else "it is the last block"
        msg = f"after: received {after!r}, which no block comes after; {known}"
        raise TokenError(msg)
    width, prefix = model.embed_dim, model.num_prefix_tokens

    def learner() -> LearnedTokens:
        if version == "1.0":
            return LearnedTokens(ConvTokenLearner(width, number, mean=mean), prefix)
        return LearnedTokens(TokenLearner(width, number, dropout), prefix)

    place = names.index(after) + 1
    if fuser:
        for i in range(place, len(names)):
            fused = FusedBlock(model.blocks[i], learner(), TokenFuser(width, number, dropout))
            model.blocks[i] = fused
        return [f"{name}.{part}" for name in names[place:] for part in (_NEW, "fuser")]
    children = list(model.blocks.named_children())
    children.insert(place, (_NEW, learner()))
    model.blocks = nn.Sequential(OrderedDict(children))
    return [f"{_BLOCKS}.{_NEW}"]
